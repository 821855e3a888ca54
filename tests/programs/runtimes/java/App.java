import java.util.ArrayList;
import java.util.List;
import java.util.Random;

/**
 * A program under the OpenTelemetry Java agent: {@code java -javaagent:… App.java leak|healthy SECONDS}. Both serve
 * the same made-up calls; the leaking one keeps a part of what each one makes.
 */
public class App {
    private static final List<byte[]> KEPT = new ArrayList<>();

    public static void main(String[] arguments) throws InterruptedException {
        boolean leaks = arguments[0].equals("leak");
        long end = System.currentTimeMillis() + Long.parseLong(arguments[1]) * 1000;
        Random chance = new Random(1);
        List<byte[]> recent = new ArrayList<>();
        while (System.currentTimeMillis() < end) {
            // Some of it lives for a while, so that it reaches the old generation and is garbage there.
            recent.add(new byte[100_000 + chance.nextInt(100_000)]);
            if (recent.size() > 200) {
                recent.subList(0, 100).clear();
            }
            if (leaks) {
                KEPT.add(new byte[14_000]);
            }
            Thread.sleep(10);
        }
    }
}
