"""What only the real thing shows: several gunicorn workers over one database."""

import httpx
from conftest import PASSWORD


def test_it_works(serve):
    server = serve(WEB_CONCURRENCY="2")
    with httpx.Client(base_url=server.url) as http:
        who = {"username": "alice", "password": PASSWORD}
        session = http.post("/api/auth/login", json=who).json()["data"]["token"]
        http.headers["Authorization"] = f"Bearer {session}"
        wanted = {"name": "script", "mode": "read", "password": PASSWORD}
        key = http.post("/api/me/api-keys", json=wanted).json()["data"]
        bearer = {"Authorization": f"Bearer {key['token']}"}
        assert httpx.get(f"{server.url}/verify", headers=bearer).status_code == 200
        assert http.delete(f"/api/me/api-keys/{key['id']}").json()["data"] == {}
        assert httpx.get(f"{server.url}/verify", headers=bearer).status_code == 401
