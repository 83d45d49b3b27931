"""What cron does for the operator: flask backup, flask prune."""

from flask import Flask

from extras.maintenance import backup, prune


def register(app: Flask) -> None:
    app.cli.add_command(backup.backup)
    app.cli.add_command(prune.prune)
