"""A socket server, a thread for each connection, without requests that anything counts: clients come, talk and go."""

import random
import socket
import socketserver
import threading
import time

from serving import TABLES, load_tables


class Talk(socketserver.StreamRequestHandler):
    def handle(self):
        said = []
        for line in self.rfile:
            said.append(line * 40)
            number = random.randrange(5_000)
            self.wfile.write("".join(TABLES["table 9"][number : number + 5]).encode() + b"\n")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 50


def client(port):
    with socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rwb") as file:
        for number in range(random.randrange(5, 150)):
            file.write(f"line {number} {'x' * random.randrange(400)}\n".encode())
            file.flush()
            file.readline()
            time.sleep(random.expovariate(20))


def clients(port):
    while True:
        threading.Thread(target=client, args=(port,), daemon=True).start()
        time.sleep(random.expovariate(3 if time.monotonic() % 50 < 25 else 1.2))


load_tables()
with Server(("127.0.0.1", 0), Talk) as server:
    threading.Thread(target=clients, args=(server.server_address[1],), daemon=True).start()
    server.serve_forever()
