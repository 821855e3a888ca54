"""Leaks Python objects: every order is remembered in a list on the one instance of the service."""

from requests_loop import serve


class Order:
    def __init__(self, number, lines):
        self.number = number
        self.lines = lines


class OrderService:
    def __init__(self):
        self.handled = []

    def handle(self, number, size):
        order = Order(number, [])
        for line in range(size // 300):
            order.lines.append(Order(line, {"sku": f"sku-{number}-{line}"}))
        self.handled.extend(order.lines)


service = OrderService()
serve(service.handle, description=__doc__)
