"""The migrations make exactly the tables of the models."""

from flask_migrate import check


def test_flask_db_check_finds_nothing(app):
    with app.app_context():
        check()
