"""How a token is made and recognised."""

import pytest

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


def test_the_checksum_is_the_crc_32_in_base_62():
    """By the check value of CRC-32: tokens must stay good in every later version."""
    assert tokens.checksum("123456789") == "3jZRME"
    first = "lk_eaw9QT3dOp16_0scqxUFGBTSpzC48pIanf6ZPJ1lANAwfF4AIqtvNkbV2beoKw"
    assert tokens.parse(first, "lk").public == "eaw9QT3dOp16"


@pytest.mark.parametrize("prefix", ["lj", "ll", "l", "lks", "a", "z"])
def test_a_token_of_another_prefix_is_not_recognised_though_its_checksum_is_right(
    prefix,
):
    other = tokens.new_token(prefix)
    assert tokens.parse(other.text, prefix) == other
    assert tokens.parse(other.text, "lk") is None


def test_redaction_leaves_nothing_of_the_secret():
    text = tokens.new_token("lk").text
    assert tokens.redact(f"/x/{text}/y") == f"/x/{text[:15]}_.../y"
