"""What an operator does by hand: flask users …, flask keys …, flask prune."""

from flask import Flask

from extras.commands import keys, prune, users


def register(app: Flask) -> None:
    app.cli.add_command(users.group)
    app.cli.add_command(keys.group)
    app.cli.add_command(prune.prune)
