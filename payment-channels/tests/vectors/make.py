"""Makes payments.json: signed payments of another implementation, for the tests of this crate.

Run with eth-account from PyPI:  python -m venv v && v/bin/pip install eth-account && v/bin/python make.py > payments.json
The signatures are deterministic (RFC 6979), so the output is the same every time. The keys are made of words and worth nothing.
"""

import json

from importlib.metadata import version
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_utils import keccak, to_canonical_address

# The order of the group of secp256k1 (SEC 2, section 2.4.1).
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
MAX = 2**256 - 1

CONTRACT = "0x5e592f9b1d303183d963635f895f0f0c48284f4e"
OTHER_CONTRACT = "0x3d6ff9cdc21c7ffd1ef38e9a0cc9ff55b9bc3c2d"


def account(words):
    return Account.from_key(keccak(text=words))


SENDER, SIGNER, STRANGER = account("sender"), account("signer"), account("stranger")


def message(contract, channel, nonce, amount, prefix=b"__MPE_claim_message"):
    numbers = b"".join(number.to_bytes(32, "big") for number in (channel, nonce, amount))
    return prefix + to_canonical_address(contract) + numbers


def sign(by, packed):
    """What a client signs: the hash of the message, as an Ethereum signed message."""
    return bytes(by.sign_message(encode_defunct(primitive=keccak(packed))).signature)


def payment(name, by, contract, channel, nonce, amount):
    signature = sign(by, message(contract, channel, nonce, amount))
    return {
        "name": name,
        "contract": contract,
        "channel_id": str(channel),
        "nonce": str(nonce),
        "amount": str(amount),
        "signature": "0x" + signature.hex(),
        "signer": by.address.lower(),
    }


VALID = [
    payment("signed by the signer", SIGNER, CONTRACT, 7, 3, 580),
    payment("signed by the sender", SENDER, CONTRACT, 7, 3, 580),
    payment("signed by a stranger", STRANGER, CONTRACT, 7, 3, 580),
    payment("the next amount", SIGNER, CONTRACT, 7, 3, 600),
    payment("the nonce before", SIGNER, CONTRACT, 7, 2, 580),
    payment("the nonce after", SIGNER, CONTRACT, 7, 4, 580),
    payment("another channel", SIGNER, CONTRACT, 8, 3, 580),
    payment("another contract", SIGNER, OTHER_CONTRACT, 7, 3, 580),
    payment("an amount of zero", SIGNER, CONTRACT, 7, 3, 0),
    payment("the largest amount", SIGNER, CONTRACT, 7, 3, MAX),
    payment("the largest amount but one", SIGNER, CONTRACT, 7, 3, MAX - 1),
    payment("every number the largest", SIGNER, CONTRACT, MAX, MAX, MAX),
    payment("every number zero", SIGNER, CONTRACT, 0, 0, 0),
]
# Enough to see both recovery ids, and r and s of every size.
VALID += [payment(f"series {amount}", SIGNER, CONTRACT, 7, 3, amount) for amount in range(1000, 1024)]

PACKED = message(CONTRACT, 7, 3, 580)
GOOD = sign(SIGNER, PACKED)
HIGH_S = GOOD[:32] + (ORDER - int.from_bytes(GOOD[32:64], "big")).to_bytes(32, "big") + bytes([55 - GOOD[64]])
SWAPPED = message(CONTRACT, 7, 580, 3)

# Signatures offered for the payment (CONTRACT, channel 7, nonce 3, amount 580), none of which may be accepted.
INVALID = {
    "over another prefix": sign(SIGNER, message(CONTRACT, 7, 3, 580, b"__MPE_claim_massage")),
    "over no prefix": sign(SIGNER, message(CONTRACT, 7, 3, 580, b"")),
    "over nonce and amount swapped": sign(SIGNER, SWAPPED),
    "over little-endian numbers": sign(
        SIGNER,
        b"__MPE_claim_message"
        + to_canonical_address(CONTRACT)
        + b"".join(number.to_bytes(32, "little") for number in (7, 3, 580)),
    ),
    "over numbers of eight bytes": sign(
        SIGNER,
        b"__MPE_claim_message"
        + to_canonical_address(CONTRACT)
        + b"".join(number.to_bytes(8, "big") for number in (7, 3, 580)),
    ),
    "over the message and not its hash": bytes(SIGNER.sign_message(encode_defunct(primitive=PACKED)).signature),
    "over the hash without the prefix of Ethereum": bytes(Account.unsafe_sign_hash(keccak(PACKED), SIGNER.key).signature),
    "high s": HIGH_S,
    "the other recovery id": GOOD[:64] + bytes([55 - GOOD[64]]),
    "recovery id 2": GOOD[:64] + b"\x02",
    "recovery id 26": GOOD[:64] + b"\x1a",
    "recovery id 29": GOOD[:64] + b"\x1d",
    "recovery id of a transaction": GOOD[:64] + b"\x25",
    "recovery id 255": GOOD[:64] + b"\xff",
    "r of zero": bytes(32) + GOOD[32:],
    "s of zero": GOOD[:32] + bytes(32) + GOOD[64:],
    "r of the order": ORDER.to_bytes(32, "big") + GOOD[32:],
    "r on no point of the curve": (5).to_bytes(32, "big") + GOOD[32:],
    "all bits set": b"\xff" * 64 + b"\x1b",
    "all zero": bytes(64) + b"\x1b",
    "empty": b"",
    "one byte too short": GOOD[:64],
    "one byte too long": GOOD + b"\x00",
    "the compact form of 64 bytes": GOOD[:32] + bytes([GOOD[32] | (GOOD[64] - 27) << 7]) + GOOD[33:64],
}

print(
    json.dumps(
        {
            "made_with": "eth-account " + version("eth-account"),
            "contract": CONTRACT,
            "sender": SENDER.address.lower(),
            "signer": SIGNER.address.lower(),
            "stranger": STRANGER.address.lower(),
            "message": "0x" + PACKED.hex(),
            "valid": VALID,
            "invalid": [{"name": name, "signature": "0x" + value.hex()} for name, value in INVALID.items()],
        },
        indent=1,
    )
)
