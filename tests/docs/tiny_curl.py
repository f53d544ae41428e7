"""The options of curl that README.md and docs/api.md use, for machines without curl.

`curl -sS [-i] [-X METHOD] [-H HEADER]… [--json BODY] URL`
"""

import argparse
import sys
from http.client import HTTPConnection
from urllib.parse import urlsplit, urlunsplit


def main() -> None:
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("-sS", dest="quiet", action="store_true", required=True)
    parser.add_argument("-i", dest="with_headers", action="store_true")
    parser.add_argument("-X", dest="method")
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("--json")
    parser.add_argument("url")
    arguments = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in arguments.headers)
    if arguments.json is not None:
        headers |= {"Content-Type": "application/json", "Accept": "application/json"}
    method = arguments.method or ("GET" if arguments.json is None else "POST")
    url = urlsplit(arguments.url)
    connection = HTTPConnection(url.netloc)
    connection.request(method, urlunsplit(("", "", url.path, url.query, "")), body=arguments.json, headers=headers)
    response = connection.getresponse()
    if arguments.with_headers:
        sys.stdout.write("".join(f"{name}: {value}\r\n" for name, value in response.getheaders()) + "\r\n")
    sys.stdout.write(response.read().decode())


if __name__ == "__main__":
    main()
