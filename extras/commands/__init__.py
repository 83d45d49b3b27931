"""What an operator does by hand: flask users …, flask keys …"""

from flask import Flask

from extras.commands import keys, users


def register(app: Flask) -> None:
    app.cli.add_command(users.group)
    app.cli.add_command(keys.group)
