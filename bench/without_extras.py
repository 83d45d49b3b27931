"""Can each extra be deleted? Delete it, and run the core's tests without it.

    python -m bench.without_extras [NAME ...]

For each extra, or for those that are named: a copy of the tree loses the extra, its
import and its line in app.py, and the tests that need it (the tables below); then every
other test that is not "live" runs there. If one fails, the exit is 1. In the tables, a
file of tests is deleted, and what stands behind :: begins the names of single tests.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from test_extras import EXTRAS, TOGETHER, without

from bench import ROOT

OF_SEVERAL = [  # tests of the whole tree, or that ask the URLs of several extras
    "test_attacks.py::test_a_string_is_a_string_everywhere",
    "test_docs.py",
    "test_extras.py",
    "test_gateway_requests.py::test_every_view_answers_a_websocket",
    "test_gateway_requests.py::test_no_host_makes_an_error_of_ours",
    "test_http_edges.py::test_an_encoded_body_is_415",
    "test_http_edges.py::test_on_verify_and_without_a_body_an_encoding_never_matters",
    "test_openapi.py",
    "test_plans.py",
    "test_reading.py",
]
TESTS = {  # of each extra: what imports from it, or asks one of its URLs
    "account_page": [
        "test_cookie.py",
        "test_gateway_requests.py::test_another_site_that_is_refused_is_told",
        "test_http_edges.py::test_null_is_no_name_and_no_password",
        "test_not_found.py",
        "test_page.py",
        "test_portal.py::test_nothing_points_to_an_extra_that_is_not_there",
        "test_postgresql_settings.py::test_a_name_as_long_as_allowed",
        "test_postgresql_settings.py::test_what_an_encoding_cannot_hold_is_400",
        "test_postgresql_settings.py::test_what_may_not_come_again_is_503",
        "test_stdin.py::test_a_password_is_right_in_any_form",
    ],
    "audit_command": [
        "test_audit_command.py",
        "test_cli.py",
        "test_cli_odd.py",
        "test_plans.py",
        "test_stdin.py::test_an_argument_that_is_not_utf8_is_told_in_one_line",
    ],
    "audit_trail": [
        "test_api_keys.py::test_a_page_has_100_unless_fewer_are_wanted",
        "test_api_keys.py::test_bad_paging_is_refused",
        "test_api_keys.py::test_every_api_route_but_the_login_asks_who_it_is",
        "test_api_keys.py::test_it_works",
        "test_api_keys.py::test_keys_and_audit_events_come_in_pages_newest_first",
        "test_api_keys.py::test_nobody_sees_what_is_not_theirs",
        "test_api_keys.py::test_the_audit_trail_is_filtered_by_date",
        "test_api_keys.py::test_the_audit_trail_is_filtered_by_event_and_by_key",
        "test_api_keys.py::test_the_id_of_an_event_is_text",
        "test_api_keys.py::test_what_is_no_time_is_refused",
        "test_gateway_requests.py::test_on_a_unix_socket_without_an_address",
        "test_gateway_requests.py::test_who_sent_",
        "test_password.py::test_it_works",
        "test_http_edges.py::test_an_id_is_the_same_in_any_case",
        "test_http_edges.py::test_nothing_else_is_the_same_id",
        "test_postgresql_settings.py",
    ],
    "commands": [
        "test_attacks.py::test_no_user_s_name_can_split_the_answer_of_verify",
        "test_cli.py",
        "test_cli_keys.py",
        "test_cli_odd.py",
        "test_config.py::test_several_hosts_are_taken_as_libpq_does",
        "test_http_edges.py::test_an_id_is_the_same_in_any_case",
        "test_http_edges.py::test_the_operator_s_ids_too",
        "test_postgresql_settings.py",
        "test_stdin.py",
    ],
    "docs": [
        "test_generated_clients.py",
        "test_not_found.py",
        "test_portal.py",
        "test_postgresql_settings.py::test_what_an_encoding_cannot_hold_is_400",
    ],
    "failover": ["test_failover.py"],
    "gateway": [
        "test_cookie.py::test_behind_a_proxy_the_browser_s_own_address_counts",
        "test_gateway_requests.py",
        "test_http_edges.py::test_a_host_is_needed_once",
        "test_http_edges.py::test_without_a_host_http_1_1_is_400",
        "test_sessions.py::test_ten_failures_close_the_name_and_the_address",
        "test_sessions.py::test_the_trail_keeps_the_whole_address",
    ],
    "health": [
        "test_config.py::test_every_spelling_of_postgresql_is_taken",
        "test_config.py::test_only_a_migration_makes_the_file",
        "test_config.py::test_several_hosts_are_taken_as_libpq_does",
        "test_gateway_requests.py::test_the_host_decides_nothing_on_verify_and_healthz",
        "test_http_edges.py::test_a_host_is_needed_once",
        "test_postgresql_settings.py",
        "test_verify.py::test_healthz",
        "test_verify.py::test_no_transaction_is_left_open",
        "test_verify.py::test_without_a_database_nobody_gets_in_and_healthz_says_so",
    ],
    "log": ["test_log.py"],
    "maintenance": [
        "test_backup.py",
        "test_cli.py",
        "test_cli_odd.py",
        "test_postgresql_settings.py",
        "test_pruning.py",
    ],
    "mcp": [
        "test_mcp.py",
        "test_mcp_clients.py",
        "test_not_found.py::test_without_the_docs_the_page_does_not_point_to_them",
        "test_portal.py::test_nothing_points_to_an_extra_that_is_not_there",
        "test_portal.py::test_one_click_copies_and_without_javascript",
        "test_portal.py::test_the_page_says_all_that_the_reference_page_says",
    ],
    "metrics": ["test_metrics.py"],
    "oidc": [
        "test_oidc.py",
        "test_oidc_page.py",
        "test_oidc_tokens.py",
    ],
    "oauth": [
        "test_apache.py",
        "test_attacks.py::test_a_changed_token_opens_and_kills_nothing",
        "test_attacks.py::test_garbage_never_reaches_the_database",
        "test_http_edges.py::test_a_chunked_form_over_16_kib_tells_nothing",
        "test_oauth.py",
        "test_oauth_clients.py",
        "test_postgresql_settings.py::test_a_database_that_may_only_be_read",
        "test_postgresql_settings.py::test_what_an_encoding_cannot_hold_is_400",
        "test_postgresql_settings.py::test_what_may_not_come_again_is_503",
    ],
    "password": [
        "test_api_keys.py::test_every_api_route_but_the_login_asks_who_it_is",
        "test_page.py",
        "test_password.py",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(EXTRAS))
    names = parser.parse_args().names or EXTRAS
    check_table(names)
    failed = [name for name in names if not passes_without(name)]
    sys.exit(f"tests fail without: {', '.join(failed)}" if failed else 0)


def check_table(names: list[str]) -> None:
    """Exit if the table lacks an extra, or names an extra or a test that is gone."""
    for name in {*EXTRAS} ^ TESTS.keys() | {*names} - {*EXTRAS}:
        sys.exit(f"{name}: is no extra, or is not in the table of {__file__}")
    for test in sum(TESTS.values(), OF_SEVERAL):
        file, _, function = test.partition("::")
        text = (ROOT / "tests" / file).read_text()
        if f"\ndef {function.partition('[')[0]}" not in text:
            sys.exit(f"{test}: is gone, but is in the table of {__file__}")


def passes_without(name: str) -> bool:
    """Whether the other tests pass without the extra. Prints a line, or what failed."""
    together = TOGETHER.get(name, [name])
    with TemporaryDirectory(prefix="latchkey-") as home:
        tree = without(together, Path(home) / "latchkey")
        for folder in ("bench", "tests", "tools"):
            cached = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / folder, tree / folder, ignore=cached)
        own = {*OF_SEVERAL, *sum((TESTS[extra] for extra in together), [])}
        options = ["-n", "4", "--dist", "worksteal", "-m", "not live", "--tb=short"]
        options += leave_out(own, tree)
        command = [sys.executable, "-m", "pytest", *options]
        started = time.monotonic()
        ran = subprocess.run(command, cwd=tree, capture_output=True, text=True)
        seconds = time.monotonic() - started
    passed = re.search(r"(\d+) passed", ran.stdout)
    good = ran.returncode == 0 and passed
    verdict = f"{passed[1]} passed" if good else f"FAILED\n{ran.stdout}{ran.stderr}"
    print(f"without {name:12} {seconds:5.0f} s  {verdict}", flush=True)
    return bool(good)


def leave_out(tests: set[str], tree: Path) -> list[str]:
    """Delete whole files of tests. Returns pytest's options against single tests."""
    options = []
    for test in tests:
        if "::" in test:
            options.append(f"--deselect=tests/{test}")
        else:
            (tree / "tests" / test).unlink()
    return options


if __name__ == "__main__":
    main()
