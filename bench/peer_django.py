"""A Django project with djangorestframework-api-key and django-rest-knox.

The settings are those of ``django-admin startproject`` and of the two packages' own
pages, with DEBUG off; connections are kept, and SQLite is set as Latchkey sets it.
DATABASE_URL says where the database is.

    python -m bench.peer_django KEYS GIVEN

makes the database with so many keys of each package; those that are given are printed.
"""

import json
import os
import sys

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.urls import path
from psycopg.conninfo import conninfo_to_dict

SQLITE_AS_LATCHKEY = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL"
KEYS_OF_A_USER = 5


def database(url):
    if url.startswith("sqlite:///"):
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": url.removeprefix("sqlite:///"),
            "CONN_MAX_AGE": None,
            "OPTIONS": {
                "init_command": SQLITE_AS_LATCHKEY,
                "transaction_mode": "IMMEDIATE",
            },
        }
    place = conninfo_to_dict(url)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": place["dbname"],
        "USER": place["user"],
        "HOST": place["host"],
        "CONN_MAX_AGE": None,
    }


settings.configure(
    SECRET_KEY="a bench has no secrets",
    DEBUG=False,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={"default": database(os.environ["DATABASE_URL"])},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "rest_framework",
        "rest_framework_api_key",
        "knox",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
)
django.setup()

# What follows can only be imported when Django is set up.
from django.contrib.auth.models import User  # noqa: E402
from knox.auth import TokenAuthentication  # noqa: E402
from knox.models import AuthToken, get_digest_token, get_expiry  # noqa: E402
from knox.settings import knox_settings  # noqa: E402
from knox.views import LogoutView  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402
from rest_framework_api_key.models import APIKey  # noqa: E402
from rest_framework_api_key.permissions import HasAPIKey, KeyParser  # noqa: E402


class Empty(APIView):
    """What the framework costs."""

    def get(self, request):
        return Response()


class VerifyApiKey(APIView):
    permission_classes = [HasAPIKey]

    def get(self, request):
        return Response()


class RevokeApiKey(APIView):
    """The package has no call for it: its keys are revoked in Django's admin."""

    def post(self, request):
        key = APIKey.objects.get_from_key(KeyParser().get(request))
        key.revoked = True
        key.save()
        return Response(status=204)


class VerifyKnox(APIView):
    authentication_classes = [TokenAuthentication]
    permission_classes = [IsAuthenticated]

    def get(self, request):
        return Response(headers={"X-User-Name": request.user.username})


urlpatterns = [
    path("empty", Empty.as_view()),
    path("api-key/verify", VerifyApiKey.as_view()),
    path("api-key/revoke", RevokeApiKey.as_view()),
    path("knox/verify", VerifyKnox.as_view()),
    path("knox/revoke", LogoutView.as_view()),
]
application = get_wsgi_application()


def fill_api_key(count):
    """So many keys; their tokens."""
    found, rows = [], []
    for _ in range(count):
        row = APIKey(name="script")
        found.append(APIKey.objects.assign_key(row))
        rows.append(row)
    APIKey.objects.bulk_create(rows, batch_size=1000)
    return found


def fill_knox(count):
    """So many tokens, each user with five."""
    users = [User(username=f"user{n}") for n in range(count // KEYS_OF_A_USER + 1)]
    users = User.objects.bulk_create(users, batch_size=1000)
    found, rows = [], []
    for number in range(count):
        digest, token = get_digest_token()
        found.append(token)
        row = AuthToken(digest=digest, token_key=token[:15])
        row.user = users[number // KEYS_OF_A_USER]
        row.expiry = get_expiry(knox_settings.TOKEN_TTL)
        rows.append(row)
    AuthToken.objects.bulk_create(rows, batch_size=1000)
    return found


def fill(keys, given):
    """``keys`` and ``given`` more of each package; the tokens of these."""
    call_command("migrate", verbosity=0)
    found = {
        "djangorestframework-api-key": fill_api_key(keys + given)[keys:],
        "django-rest-knox": fill_knox(keys + given)[keys:],
    }
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return found


if __name__ == "__main__":
    print(json.dumps(fill(int(sys.argv[1]), int(sys.argv[2]))))
