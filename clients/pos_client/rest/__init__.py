"""ApiClient: the REST API as methods, one per endpoint, with the request and response models of `core.rest`.

`calls` sends one request of any endpoint and retries it where that is safe. `admin`, `issuer` and `merchant` define the
methods of each role; `client` combines them. A test checks that every endpoint has a method.
"""
