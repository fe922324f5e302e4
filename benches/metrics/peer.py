"""The Python packages' share of the comparison of metrics: rouge-score and sacrebleu as they come.

    pip install rouge-score==0.1.2 sacrebleu==2.6.0
    python peer.py DOCUMENTS        # a JSON file: {name: [[prediction, [reference]]]}

reads a task a line, `METRIC NAME`, and answers with two numbers: the seconds it took to score all documents of that name, and
the mean score (the corpus' of BLEU and chrF). The first line says the versions.
"""

import json
import logging
import sys
import time
from importlib.metadata import version

from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def rouge(stemming):
    def score(documents):
        scorer = rouge_scorer.RougeScorer(KINDS, use_stemmer=stemming)
        scores = [scorer.score_multi(references, prediction) for prediction, references in documents]
        return sum(kinds[kind].fmeasure for kinds in scores for kind in KINDS) / len(scores) / len(KINDS)

    return score


def corpus(make):
    def score(documents):
        streams = zip(*(references for _, references in documents))
        return make().corpus_score([prediction for prediction, _ in documents], list(map(list, streams))).score

    return score


def sentences(make):
    def score(documents):
        metric = make()
        return sum(metric.sentence_score(*document).score for document in documents) / len(documents)

    return score


METRICS = {
    "rouge": rouge(False),
    "rouge-stem": rouge(True),
    "bleu": corpus(BLEU),
    "sentence-bleu": sentences(lambda: BLEU(effective_order=True)),
    "chrf": corpus(CHRF),
    "chrf++": corpus(lambda: CHRF(word_order=2)),
}


def main():
    logging.disable(logging.CRITICAL)
    with open(sys.argv[1]) as file:
        documents = json.load(file)
    print(f"rouge-score {version('rouge-score')}, sacrebleu {version('sacrebleu')}, Python {sys.version.split()[0]}", flush=True)
    for line in sys.stdin:
        metric, name = line.split()
        start = time.perf_counter()
        score = METRICS[metric](documents[name])
        print(time.perf_counter() - start, score, flush=True)


if __name__ == "__main__":
    main()
