"""The floor every ratio is to: one Flask endpoint that answers JSON and does nothing else."""

from flask import Flask

app = Flask(__name__)


@app.get("/verify")
def verify():
    return {"ok": True}
