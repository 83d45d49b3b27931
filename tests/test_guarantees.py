"""The guarantees, measured for a short while; bench/ measures them for long."""

import pytest

from bench import crash, revocation


@pytest.mark.parametrize("way", revocation.WAYS)
def test_nothing_that_starts_after_the_answer_gets_in(app, serve, way):
    servers = [serve(WEB_CONCURRENCY="2"), serve(WEB_CONCURRENCY="2")]
    rounds = 2 if way.startswith("flask") else 20
    told = revocation.measure(servers, app, way, rounds, rounds * 50, clients=4)
    assert told["after"] > rounds  # it did look
    assert (told["stale"], told["wrongly_refused"]) == (0, 0)


@pytest.mark.parametrize("what", ["worker", "master"])
def test_nothing_is_lost_that_was_answered(serve, what):
    server, ledger = serve(**crash.ROOMY), crash.Ledger()
    server = crash.storm(server, ledger, what)
    try:
        assert len(ledger.revoked) > 2
        assert crash.lost(server, ledger) == []
    finally:
        server.stop()
