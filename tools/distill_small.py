"""Makes `small`, the encoder for daily work under textcl/assets/small: a static student in half precision.

    python tools/distill_small.py --teacher DIRECTORY --texts FILE|VECTORS --output FOLDER

The teacher is all-MiniLM-L6-v2. VECTORS is what `textcl encode` wrote with it; a FILE is encoded first. The same
vectors give the same student on the same machine. README.md and LICENSE beside the files are written by hand.
"""

import argparse
from pathlib import Path

import textcl
from textcl.encoder import Encoder

# Chosen on STS-B dev. 240 numbers in half precision for each token of the teacher's vocabulary are 14.7 MB.
DIMENSIONS, WORDS = 240, 0
MOST = 16_000_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    made = textcl.distill(given.teacher, given.texts, static=DIMENSIONS, words=WORDS, seed=given.seed)
    made.encoder.half().save(given.output)
    size = sum(file.stat().st_size for file in given.output.rglob("*") if file.is_file())
    before, after = made.record["cosine"]
    print(f"{given.output}: {size:,} bytes, cosine with the teacher on held-out texts {before:.3f}, then {after:.3f}")
    print(f"STS-B dev: {textcl.STSBenchmark('dev')(Encoder.from_pretrained(given.output)).primary:.2f}")
    if size > MOST:
        raise SystemExit(f"That is more than {MOST:,} bytes.")


if __name__ == "__main__":
    main()
