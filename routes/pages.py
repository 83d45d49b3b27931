"""/: the account page. It calls the JSON API and has no logic of its own."""

from flask import Blueprint, render_template

bp = Blueprint("pages", __name__)
bp.add_url_rule("/", "index", lambda: render_template("index.html"))
