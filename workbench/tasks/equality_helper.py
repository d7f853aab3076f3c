"""The helper process of `equality`: reads lines of JSON [prediction, gold], writes true or false for each.

Run as a script, on its own: it imports nothing of ours.
"""

import json
import sys

MEMORY = 8 << 30  # bytes of address space; a number that needs more is no answer


def equal(prediction: str, gold: str) -> bool:
    """math-verify's opinion; whatever goes wrong inside it is a no."""
    from math_verify import parse, verify

    try:
        a, b = (parse(f"${text}$", parsing_timeout=2) for text in (prediction, gold))
        return bool(a and b and verify(b, a, timeout_seconds=3))
    except Exception:  # sympy and the parser raise anything on odd input, and the house rule is: failure = not equal
        return False


def main() -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    import math_verify  # noqa: F401  (the slow part, before the first question)

    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(equal(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
