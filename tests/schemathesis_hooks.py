"""For test_openapi.py: what schemathesis cannot guess: the password, who calls what."""

import base64
import os

import httpx
import schemathesis

URL, PASSWORD = os.environ["LATCHKEY_URL"], os.environ["LATCHKEY_PASSWORD"]
WHO = {"username": "alice", "password": PASSWORD}


def session():
    return httpx.post(f"{URL}/api/auth/login", json=WHO).json()["data"]["token"]


SESSION = session()


def key():
    wanted = {"name": "script", "mode": "write", "password": PASSWORD}
    bearer = {"Authorization": f"Bearer {SESSION}"}
    made = httpx.post(f"{URL}/api/me/api-keys", json=wanted, headers=bearer)
    return made.json()["data"]


@schemathesis.auth(refresh_interval=None)
class Bearer:
    """A key where a key is wanted; each signing out ends a session of its own."""

    def get(self, case, context):
        wanted = case.operation.definition.raw
        if {"api_key": []} in wanted["security"]:
            return f"Bearer {key()['token']}"
        if {"client": []} in wanted["security"]:
            made = key()
            pair = f"{made['key_public']}:{made['token']}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        return f"Bearer {session() if wanted['operationId'] == 'logout' else SESSION}"

    def set(self, case, data, context):
        case.headers["Authorization"] = data


@schemathesis.hook
def before_call(context, case, kwargs):
    """A well-formed body has the right password, and sets no other."""
    well_formed = case.meta and case.meta.generation.mode.is_positive
    if well_formed and isinstance(case.body, dict) and "password" in case.body:
        case.body["password"] = PASSWORD
        if "new_password" in case.body:
            case.body["new_password"] = PASSWORD
        if "username" in case.body:
            case.body["username"] = "alice"
