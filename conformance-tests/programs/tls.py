"""Python's ssl module with a key of the TPM, for tests.
usage: tls.py server|client PORT CERTIFICATE KEY [PIN]     the peer's CA is in chain.crt"""

import socket
import ssl
import sys

role, port, certificate, key = sys.argv[1:5]
pin = sys.argv[5] if len(sys.argv) > 5 else None
address = ("127.0.0.1", int(port))

if role == "server":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key, password=pin)
    with socket.create_server(address) as listener:
        while True:
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as peer:
                    peer.sendall(peer.recv(100).strip()[::-1] + b"\n")
            except OSError as error:
                print(error, flush=True)
else:
    context = ssl.create_default_context(cafile="chain.crt")
    context.load_cert_chain(certificate, key, password=pin)
    with socket.create_connection(address) as connection:
        with context.wrap_socket(connection, server_hostname="localhost") as peer:
            peer.sendall(b"hello\n")
            print(peer.recv(100).decode())
