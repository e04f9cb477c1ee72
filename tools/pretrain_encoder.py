"""Pretrains textcl's bundled encoder from scratch, only on masked words, on the CPU of a laptop.

    python tools/pretrain_encoder.py --sentences wiki1m_like.txt.xz --documents wiki_docs_long.txt.xz --output mlm

This script does all steps: a WordPiece vocabulary, word embeddings from the corpus' co-occurrence counts, masked-word
training with `transformers.Trainer`, and the directory that `textcl.Encoder.from_pretrained` loads. `--resume`
continues from the newest checkpoint. With a smaller `--max-steps` the final decay of the learning rate then starts at
once, so a run can be shortened at any checkpoint. `--start-from` continues from an earlier encoder of this shape and
uses its vocabulary; give it another `--seed`, or it sees the same batches again. The defaults are those of the second
stage of the bundled encoder; from scratch, use twice the steps. On a busy machine `torchrun --nproc-per-node 2` with
OMP_NUM_THREADS=1 is faster than one process with two threads, because the threads wait for each other in every matrix
product.

It is fast enough for two cores because the word embeddings start from a truncated SVD of the positive PMI matrix, the
projection onto the vocabulary is computed only at masked positions, and there is no dropout (one pass cannot overfit).
"""

import argparse
import json
import logging
import lzma
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from sklearn.utils.extmath import randomized_svd
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, Trainer, TrainingArguments

logger = logging.getLogger("pretrain_encoder")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # ids 0 to 4
PAD, UNK, CLS, SEP, MASK = range(5)
TOKENS_A_STEP = 6144  # small, because one pass over the text has few steps, and more steps are better than larger ones
HELD_OUT = 2000  # so many of the last sentences, and a hundredth as many documents, are never trained on
LENGTHS = (64, 64, 128, 128, 512, 64, 64, 64, 64, 512)  # row length in step i, by i % 10; rows of 64 are from sentences


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, xz-compressed or not."""
    with lzma.open(path, "rt", encoding="utf-8") if path.suffix == ".xz" else open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def train_tokenizer(corpora: list[list[str]], size: int) -> Tokenizer:
    """An uncased WordPiece tokenizer with `size` entries, which splits text into words as BERT does."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIAL, limit_alphabet=200)
    tokenizer.train_from_iterator((line for corpus in corpora for line in corpus), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    return tokenizer


def encode_corpus(tokenizer: Tokenizer, lines: list[str], path: Path) -> None:
    """Writes the token ids of all `lines` as one uint16 array, and the offsets of the lines in a second file."""
    pieces, sizes = [], []
    for start in range(0, len(lines), 5000):
        for encoding in tokenizer.encode_batch_fast(lines[start : start + 5000], add_special_tokens=False):
            pieces.append(np.array(encoding.ids, dtype=np.uint16))
            sizes.append(len(encoding.ids))
    np.save(path.with_suffix(".starts.npy"), np.concatenate([[0], np.cumsum(sizes)]))
    np.save(path, np.concatenate(pieces))


def word_vectors(streams: list[np.ndarray], vocabulary: int, dimension: int, window: int = 4) -> np.ndarray:
    """Word vectors by truncated SVD of the positive PMI matrix, (vocabulary, dimension).

    Co-occurrences have weight 1/distance, and the context distribution is raised to the power 0.75.

    Levy, Goldberg and Dagan 2015, "Improving Distributional Similarity with Lessons Learned from Word Embeddings":
    PPMI(w, c) = max(0, log P(w, c) / (P(w) P_0.75(c))), and the vectors are U sqrt(S).
    """
    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float32)
    for stream in streams:
        for chunk in np.array_split(stream, max(1, len(stream) // 8_000_000)):
            for distance in range(1, window + 1):
                left, right = chunk[:-distance].astype(np.int32), chunk[distance:].astype(np.int32)
                weight = np.full(len(left), 1 / distance, dtype=np.float32)
                counts = counts + sparse.coo_matrix((weight, (left, right)), shape=counts.shape).tocsr()
    counts = (counts + counts.T).tocoo()
    row = np.asarray(counts.sum(axis=1)).ravel()
    context = row**0.75 / (row**0.75).sum()
    pmi = np.log(counts.data / (row[counts.row] * context[counts.col]))
    keep = pmi > 0
    ppmi = sparse.csr_matrix((pmi[keep], (counts.row[keep], counts.col[keep])), shape=counts.shape, dtype=np.float32)
    left_vectors, values, _ = randomized_svd(ppmi, dimension, n_oversamples=32, n_iter=3, random_state=0)
    vectors = left_vectors * np.sqrt(values)
    return (vectors * 0.03 / vectors.std()).astype(np.float32)


class Steps(torch.utils.data.Dataset):
    """Item i is the whole batch of step i, a pure function of i and the seed, so a resumed run sees the same data.

    Of ten steps, six have rows of 64 tokens that begin at a sentence, two have rows of 128 tokens of the documents, and
    two have rows of 512 tokens of the documents. So most tokens are in short rows, which are cheap and similar to the
    sentences that are encoded later; but attention over 512 keys is also trained. The rows of 128 begin at a random
    position id. This doubles how often the position embeddings after 128 are trained, which learn last.

    Masks: a token is chosen with probability `rate * min(1, sqrt(threshold / frequency))`, like the subsampling of
    frequent words in word2vec, because predicting "the" and commas teaches little about meaning. Of the chosen tokens,
    80 % become [MASK], 10 % become a random token, and 10 % stay (Devlin et al. 2019).
    """

    def __init__(
        self, folder: Path, vocabulary: int, count: int, tokens: int, rate: float, threshold: float, seed: int
    ) -> None:
        self.count, self.tokens, self.vocabulary, self.seed = count, tokens, vocabulary, seed
        self.sentences = np.load(folder / "sentences.npy", mmap_mode="r")
        starts = np.load(folder / "sentences.starts.npy")[: -HELD_OUT - 1]
        self.documents = np.load(folder / "documents.npy", mmap_mode="r")
        self.document_end = int(np.load(folder / "documents.starts.npy")[-HELD_OUT // 100 - 1])
        rows = [0]  # a row begins at the first sentence that is not complete in the previous row
        while rows[-1] < len(starts) - 62:
            rows.append(max(rows[-1] + 1, int(np.searchsorted(starts, starts[rows[-1]] + 62, side="right")) - 1))
        self.rows = starts[rows]
        frequency = np.bincount(self.sentences, minlength=vocabulary) / len(self.sentences)
        self.chance = rate * np.minimum(1.0, np.sqrt(threshold / np.maximum(frequency, 1e-12)))
        self.chance[:5] = 0.0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        length = LENGTHS[step % len(LENGTHS)]
        rows = self.tokens // length
        turn = step // len(LENGTHS) * LENGTHS.count(length) + LENGTHS[: step % len(LENGTHS)].count(length)
        text = self.sentences if length == 64 else self.documents
        places = len(self.rows) - 64 if length == 64 else (self.document_end - 512) // (length - 2)
        epoch, first = divmod(turn * rows, places - places % rows)  # each length has its own shuffled passes
        order = np.random.default_rng([self.seed, length, epoch]).permutation(places)[first : first + rows]
        begin = self.rows[order] if length == 64 else order * (length - 2)
        ids = np.full((rows, length), CLS, dtype=np.int64)
        ids[:, 1:-1] = text[begin[:, None] + np.arange(length - 2)]
        ids[:, -1] = SEP
        rng = np.random.default_rng([self.seed, step])
        batch = mask_tokens(ids, self.chance, self.vocabulary, rng)
        offsets = rng.integers(0, 512 - 128 + 1, size=rows) if length == 128 else np.zeros(rows, dtype=np.int64)
        return batch | {"position_ids": torch.from_numpy(offsets[:, None] + np.arange(length))}


def mask_tokens(ids: np.ndarray, chance: np.ndarray, vocabulary: int, rng: np.random.Generator) -> dict:
    """Chooses tokens with probability `chance` (one per token id) and masks them; `places` are their flat positions."""
    places = np.flatnonzero(rng.random(ids.shape) < chance[ids])
    hidden, kind = ids.copy().ravel(), rng.random(len(places))
    labels = hidden[places]
    hidden[places] = np.where(kind < 0.8, MASK, np.where(kind < 0.9, rng.integers(5, vocabulary, len(places)), labels))
    batch = {"input_ids": hidden.reshape(ids.shape), "places": places, "labels": labels}
    return {name: torch.from_numpy(value) for name, value in batch.items()}


class MaskedWordModel(BertForMaskedLM):
    """BERT that computes only what the loss needs: about a third less work per step, same loss and gradient.

    The last feed-forward layer and the projection onto the vocabulary are computed only at the masked positions.
    """

    def forward(
        self,
        input_ids: torch.Tensor,
        places: torch.Tensor,
        labels: torch.Tensor,
        position_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        hidden = self.bert.embeddings(input_ids, position_ids=position_ids)
        *layers, last = self.bert.encoder.layer
        for layer in layers:
            hidden = layer(hidden)
        attended = last.attention(hidden)[0].flatten(0, 1)[places]
        return {"loss": torch.nn.functional.cross_entropy(self.cls(last.feed_forward_chunk(attended)).float(), labels)}


def wave_positions(rows: int, dimension: int) -> torch.Tensor:
    """Small sinusoids (Vaswani et al. 2017, section 3.5) as initial position embeddings, (rows, dimension).

    With them, what is learned at one position also applies to the others. This is important because positions after 128
    see only a fifth of the tokens; with a random initialisation they would start as noise.
    """
    angles = torch.arange(rows)[:, None] / 10000 ** (torch.arange(0, dimension, 2) / dimension)
    return 0.01 * torch.cat([angles.sin(), angles.cos()], dim=1)


def new_model(vocabulary: int, vectors: np.ndarray) -> MaskedWordModel:
    """The untrained encoder, with word embeddings from `vectors` and sinusoidal position embeddings."""
    config = BertConfig(
        vocab_size=vocabulary, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024,
        max_position_embeddings=512, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = MaskedWordModel(config)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[5:] = torch.from_numpy(vectors[5:])
        model.bert.embeddings.position_embeddings.weight.copy_(wave_positions(512, 256))
    return model


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """Writes vocabulary, token arrays and word vectors to `folder`, unless they exist already."""
    if (folder / "vectors.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    corpora = {"sentences": read_lines(options.sentences), "documents": read_lines(options.documents)}
    if options.start_from:
        tokenizer = Tokenizer.from_file(str(options.start_from / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    else:
        tokenizer = train_tokenizer(list(corpora.values()), options.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    logger.info("vocabulary of %d entries", tokenizer.get_vocab_size())
    for name, lines in corpora.items():
        encode_corpus(tokenizer, lines, folder / f"{name}.npy")
    streams = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in corpora]
    logger.info("tokens: %s", [len(stream) for stream in streams])
    vectors = [] if options.start_from else word_vectors(streams, tokenizer.get_vocab_size(), 256)
    np.save(folder / "vectors.npy", vectors)


def held_out_loss(model: MaskedWordModel, folder: Path, vocabulary: int) -> dict[str, float]:
    """Cross-entropy on held-out texts, for rows of 64 and of 512; all tokens are masked with probability 15 %."""
    losses = {}
    chance = np.full(vocabulary, 0.15)
    chance[:5] = 0.0
    for name, length, lines in (("sentences", 64, HELD_OUT), ("documents", 512, HELD_OUT // 100)):
        text = np.load(folder / f"{name}.npy", mmap_mode="r")[np.load(folder / f"{name}.starts.npy")[-lines - 1] :]
        rows = min(len(text) // (length - 2), 32768 // length)
        body = np.asarray(text[: rows * (length - 2)], dtype=np.int64).reshape(rows, length - 2)
        ids = np.pad(body, ((0, 0), (1, 1)), constant_values=((0, 0), (CLS, SEP)))
        with torch.no_grad():
            losses[f"{name}_{length}"] = float(
                model(**mask_tokens(ids, chance, vocabulary, np.random.default_rng(0)))["loss"]
            )
    return losses


def finish(model: MaskedWordModel, folder: Path, output: Path) -> None:
    """Measures the held-out loss and writes the encoder with its MLM head, in half precision."""
    model.eval()
    losses = held_out_loss(model, folder, model.config.vocab_size)
    logger.info("held-out loss %s", losses)
    (output / "held_out.json").write_text(json.dumps(losses))
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.1  # SimCSE's views need dropout
    bundled = BertForMaskedLM(model.config)
    bundled.load_state_dict(model.state_dict())
    bundled.half().save_pretrained(output / "encoder")
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    BertTokenizer(vocabulary, do_lower_case=True, model_max_length=512).save_pretrained(output / "encoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=Path, required=True, help="one sentence per line, in the order of the text")
    parser.add_argument("--documents", type=Path, required=True, help="one long document per line")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=16384)
    parser.add_argument("--max-steps", type=int, default=5200)
    parser.add_argument("--decay-steps", type=int, default=2500)
    parser.add_argument("--save-steps", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--mask-rate", type=float, default=0.3, help="mask rate of words that are not frequent")
    parser.add_argument("--mask-threshold", type=float, default=1e-3, help="more frequent words are masked less often")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--start-from", type=Path, help="an earlier encoder of this shape, with its tokenizer.json")
    parser.add_argument("--bf16", action="store_true", help="useful on a GPU, or a CPU with AMX")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.manual_seed(options.seed)

    arguments = TrainingArguments(
        str(options.output), max_steps=options.max_steps, per_device_train_batch_size=1, bf16=options.bf16,
        use_cpu=not torch.cuda.is_available(), learning_rate=options.learning_rate, adam_beta2=0.98, weight_decay=0.01,
        optim="adamw_torch_fused", lr_scheduler_type="warmup_stable_decay", warmup_steps=200,
        lr_scheduler_kwargs={"num_decay_steps": options.decay_steps, "decay_type": "linear"},
        train_sampling_strategy="sequential", remove_unused_columns=False, logging_steps=100, disable_tqdm=True,
        save_steps=options.save_steps, save_total_limit=6,
        ddp_find_unused_parameters=False, report_to="none", seed=options.seed,
    )  # fmt: skip
    folder = options.output / "prepared"
    with arguments.main_process_first(local=True):
        prepare(options, folder)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    if options.start_from:
        no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        model = MaskedWordModel.from_pretrained(options.start_from, dtype=torch.float32, **no_dropout)
    else:
        model = new_model(vocabulary, np.load(folder / "vectors.npy"))
    processes = arguments.world_size
    steps = Steps(
        folder, vocabulary, options.max_steps * processes, TOKENS_A_STEP // processes,
        options.mask_rate, options.mask_threshold, options.seed,
    )  # fmt: skip
    trainer = Trainer(model, arguments, train_dataset=steps, data_collator=lambda rows: rows[0])
    trainer.train(resume_from_checkpoint=options.resume)

    if trainer.is_world_process_zero():
        finish(model, folder, options.output)


if __name__ == "__main__":
    main()
