"""Load tests and measurements of pos-server. None of them is part of the server.

`bench` measures the engine against pgbench, `lunch` plays a store day, and `books` measures accounting work under load.
Each is a program: `python -m loadtest.bench`. `experiments` holds single measurements behind design decisions. They
have only `shared` in common.
"""
