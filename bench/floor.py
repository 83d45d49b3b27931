"""The floor every ratio is to: a Flask view that answers JSON and does nothing else.

And the limit: a WSGI callable that answers nothing.
"""

from flask import Flask

app = Flask(__name__)


@app.get("/verify")
def verify():
    return {"ok": True}


def bare(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return []
