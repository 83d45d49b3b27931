"""How a token is made and recognised."""

import tokens


def test_a_minted_token_is_recognised_and_keeps_its_digest():
    token = tokens.new_token("lk")
    assert tokens.parse(token.text, "lk") == token
    assert len(token.text) == 65 and len(token.digest) == 32


def test_every_changed_character_is_found_by_the_checksum():
    text = tokens.new_token("lk").text
    for place in range(3, 65):
        other = "a" if text[place] != "a" else "b"
        assert tokens.parse(text[:place] + other + text[place + 1 :], "lk") is None, (
            place
        )


def test_redaction_leaves_nothing_of_the_secret():
    text = tokens.new_token("lk").text
    assert tokens.redact(f"/x/{text}/y") == f"/x/{text[:15]}_.../y"
