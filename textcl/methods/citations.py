"""Whom to cite for a run. Which part of each paper is followed stands in docs/paper-index.md."""

from collections.abc import Mapping
from typing import Any

_SIMCSE = (
    "Gao, Yao and Chen (2021). SimCSE: Simple Contrastive Learning of Sentence Embeddings. EMNLP. arXiv 2104.08821"
)
_TENSION = (
    "Carlsson, Cuba Gyllensten, Gogoulou, Ylipää Hellqvist and Sahlgren (2021). Semantic Re-tuning with Contrastive "
    "Tension. ICLR. OpenReview Ov_sMNau-PF"
)
PAPERS = {
    "simcse": _SIMCSE,
    "simcse-plus": _SIMCSE,
    "bert-ct": _TENSION,
    "ct-in-batch": _TENSION,
    "consert": "Yan, Li, Wang, Zhang, Wu and Xu (2021). ConSERT: A Contrastive Framework for Self-Supervised Sentence "
    "Representation Transfer. ACL. arXiv 2105.11741",
    "clear": "Wu, Wang, Gu, Khabsa, Sun and Ma (2020). CLEAR: Contrastive Learning for Sentence Representation. "
    "arXiv 2012.15466",
    "declutr": "Giorgi, Nitski, Wang and Bader (2021). DeCLUTR: Deep Contrastive Learning for Unsupervised Textual "
    "Representations. ACL. arXiv 2006.03659",
    "sccl": "Zhang, Nan, Wei, Li, Zhu, McKeown, Nallapati, Arnold and Xiang (2021). Supporting Clustering with "
    "Contrastive Learning. NAACL. arXiv 2103.12953",
    "simclr": "Chen, Kornblith, Norouzi and Hinton (2020). A Simple Framework for Contrastive Learning of Visual "
    "Representations. ICML. arXiv 2002.05709",
    "moco": "He, Fan, Wu, Xie and Girshick (2020). Momentum Contrast for Unsupervised Visual Representation Learning. "
    "CVPR. arXiv 1911.05722",
    "moco-v3": "Chen, Xie and He (2021). An Empirical Study of Training Self-Supervised Vision Transformers. ICCV. "
    "arXiv 2104.02057",
    "swav": "Caron, Misra, Mairal, Goyal, Bojanowski and Joulin (2020). Unsupervised Learning of Visual Features by "
    "Contrasting Cluster Assignments. NeurIPS. arXiv 2006.09882",
    "byol": "Grill et al. (2020). Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning. NeurIPS. "
    "arXiv 2006.07733",
    "simsiam": "Chen and He (2021). Exploring Simple Siamese Representation Learning. CVPR. arXiv 2011.10566",
    "barlow-twins": "Zbontar, Jing, Misra, LeCun and Deny (2021). Barlow Twins: Self-Supervised Learning via "
    "Redundancy Reduction. ICML. arXiv 2103.03230",
    "vicreg": "Bardes, Ponce and LeCun (2022). VICReg: Variance-Invariance-Covariance Regularization for "
    "Self-Supervised Learning. ICLR. arXiv 2105.04906",
}
# Of simcse-plus: the flags that take something from a further paper.
_OF_FLAGS = {
    ("queue_size",): "Wu, Gao, Zang, Han, Wang and Hu (2022). ESimCSE: Enhanced Sample Building Method for Contrastive "
    "Learning of Unsupervised Sentence Embedding. COLING. arXiv 2109.04380",
    ("noise_negatives",): "Wu, Gao, Lin, Han, Wang and Hu (2022). Smoothed Contrastive Learning for Unsupervised "
    "Sentence Embedding. COLING. arXiv 2109.04321",
    ("template",): "Jiang et al. (2022). PromptBERT: Improving BERT Sentence Embeddings with Prompts. EMNLP. "
    "arXiv 2201.04337",
    ("off_dropout_negatives", "dimension_weight"): "Xu, Shao, Chen and Wang (2023). SimCSE++: Improving Contrastive "
    "Learning for Sentence Embeddings from Two Perspectives. ACL. arXiv 2305.13192",
    ("decorrelation_weight",): "Klein and Nabi (2022). SCD: Self-Contrastive Decorrelation of Sentence Embeddings. "
    "ACL. arXiv 2203.07847",
    ("teacher",): "Liu et al. (2023). RankCSE: Unsupervised Sentence Representations Learning via Learning to Rank. "
    "ACL. arXiv 2305.16726",
}


def papers(recipe: Mapping[str, Any]) -> list[str]:
    """The papers that a recipe's method follows; none where the method is not known.

    Example:
        >>> [paper[:8] for paper in papers({"method": "simcse-plus", "queue_size": 160})]
        ['Gao, Yao', 'Wu, Gao,']
    """
    method = recipe.get("method")
    found = [PAPERS[method]] if method in PAPERS else []
    if method == "simcse-plus":
        found += [paper for flags, paper in _OF_FLAGS.items() if any(recipe.get(flag) for flag in flags)]
    return found
