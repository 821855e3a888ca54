"""Django: each visit to a dashboard connects a receiver to a signal, which holds it fast, and none disconnects."""

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.dispatch import Signal
from django.http import JsonResponse
from django.urls import path
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from serving import TABLES, serve_wsgi

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="none", USE_TZ=True, LOGGING_CONFIG=None)
django.setup()
price_changed = Signal()


def dashboard(request, number):
    widgets = [{"widget": widget, "title": f"dashboard {number} widget {widget}"} for widget in range(160)]

    def refresh(sender, **changed):
        widgets[0]["changed"] = changed

    price_changed.connect(refresh, weak=False)
    return JsonResponse({"widgets": len(widgets)})


def prices(request):
    return JsonResponse({"rows": TABLES["table 1"][:40]})


def articles(request, number):
    return JsonResponse({"rows": sorted(TABLES["table 2"][number : number + 300])[:10]})


urlpatterns = [
    path("dashboard/<int:number>", dashboard),
    path("prices", prices),
    path("articles/<int:number>", articles),
]
serve_wsgi(OpenTelemetryMiddleware(get_wsgi_application()))
