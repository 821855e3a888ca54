"""A gRPC server without any instrumentation: what each call's session has seen is kept by session, for ever."""

import itertools
import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from serving import TABLES, load_tables

sessions = {}


class Sessions(grpc.GenericRpcHandler):
    def service(self, details):
        answer = {"/shop.Sessions/Open": self.open, "/shop.Sessions/Rows": self.rows}.get(details.method)
        return answer and grpc.unary_unary_rpc_method_handler(answer)

    def open(self, request, context):
        asked = json.loads(request)
        sessions[asked["session"]] = {f"{asked['session']} seen {page}": [page] * 8 for page in range(170)}
        return b"{}"

    def rows(self, request, context):
        return json.dumps(TABLES["table 3"][:100]).encode()


def clients(port):
    numbers = itertools.count()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        open_session = channel.unary_unary("/shop.Sessions/Open")
        rows = channel.unary_unary("/shop.Sessions/Rows")
        while True:
            time.sleep(random.expovariate(10 + 3 * (time.monotonic() % 40 < 20)))
            if random.random() < 0.5:
                open_session(json.dumps({"session": f"s{next(numbers)}"}).encode())
            else:
                rows(b"{}")


load_tables()
server = grpc.server(ThreadPoolExecutor(4), handlers=[Sessions()])
port = server.add_insecure_port("127.0.0.1:0")
server.start()
threading.Thread(target=clients, args=(port,), daemon=True).start()
server.wait_for_termination()
