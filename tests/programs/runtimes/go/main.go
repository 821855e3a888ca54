// A program under OpenTelemetry's runtime instrumentation: `emitter leak|healthy SECONDS`. Both serve the same made-up
// calls; the leaking one keeps a part of what each one makes.
package main

import (
	"context"
	"log"
	"math/rand"
	"os"
	"strconv"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/runtime"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

var kept [][]byte

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	ctx := context.Background()
	seconds, err := strconv.Atoi(os.Args[2])
	must(err)
	exporter, err := otlpmetrichttp.New(ctx)
	must(err)
	attributes, err := resource.New(ctx, resource.WithFromEnv(), resource.WithTelemetrySDK(), resource.WithProcessPID(), resource.WithHost())
	must(err)
	provider := metric.NewMeterProvider(metric.WithResource(attributes), metric.WithReader(metric.NewPeriodicReader(exporter)))
	must(runtime.Start(runtime.WithMeterProvider(provider), runtime.WithMinimumReadMemStatsInterval(time.Second)))

	chance := rand.New(rand.NewSource(1))
	for end := time.Now().Add(time.Duration(seconds) * time.Second); time.Now().Before(end); {
		made := make([]byte, 100_000+chance.Intn(100_000))
		made[0] = 1
		if os.Args[1] == "leak" {
			kept = append(kept, make([]byte, 15_000))
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(provider.Shutdown(ctx))
}
