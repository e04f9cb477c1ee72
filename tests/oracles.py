"""Slow oracles: each loss as Python loops over lists of numbers, written from the paper's equation, in doubles."""

import itertools
import math

import torch

# InfoNCE and NT-Xent


def score(x, y, temperature, similarity):
    dot = sum(a * b for a, b in zip(x, y, strict=True))
    if similarity == "cosine":
        dot /= math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
    return dot / temperature


def slow_info_nce(
    queries,
    keys,
    *,
    offset=0,
    hard_negatives=None,
    hard_negative_log_weight=0.0,
    extra_negatives=None,
    temperature=0.05,
    similarity="cosine",
    query_ids=None,
    key_ids=None,
    hard_negative_ids=None,
    extra_ids=None,
    all_query_ids=None,
    keys_are_negatives=True,
):
    """SimCSE eq. 5 with the weight of section 6.3, a set of masked columns, and MoCo's keys, which are no negatives."""
    total = 0.0
    for i, query in enumerate(queries.tolist()):
        own = offset + i

        known = set()
        if query_ids is not None:
            known = {int(query_ids[i]), int(key_ids[own])}
            known |= related(all_query_ids, key_ids, int(query_ids[i]), int(key_ids[own]))

        def duplicate(ids, j, known=known):
            return ids is not None and int(ids[j]) in known

        denominator = 0.0
        for j, key in enumerate(keys.tolist()):
            if j == own or (keys_are_negatives and not duplicate(key_ids, j)):
                denominator += math.exp(score(query, key, temperature, similarity))
        if hard_negatives is not None:
            for j, negative in enumerate(hard_negatives.tolist()):
                if not duplicate(hard_negative_ids, j):
                    weight = math.exp(hard_negative_log_weight) if j == own else 1.0
                    denominator += weight * math.exp(score(query, negative, temperature, similarity))
        if extra_negatives is not None:
            for j, negative in enumerate(extra_negatives.tolist()):
                if not duplicate(extra_ids, j):
                    denominator += math.exp(score(query, negative, temperature, similarity))
        total -= math.log(math.exp(score(query, keys[own].tolist(), temperature, similarity)) / denominator)
    return total


def related(queries, keys, query, key):
    """Both texts of every pair that has the same query or the same key."""
    found = set()
    if queries is not None:
        for other_query, other_key in zip(queries.tolist(), keys.tolist(), strict=True):
            if other_query == query or other_key == key:
                found |= {other_query, other_key}
    return found


def slow_nt_xent(
    first,
    second,
    all_first,
    all_second,
    *,
    offset=0,
    temperature=0.05,
    similarity="cosine",
    first_ids=None,
    second_ids=None,
    pairs=False,
):
    """SimCLR eq. 1 and algorithm 1, for the rows at ``offset`` of each view."""
    columns = all_first.tolist() + all_second.tolist()
    half = len(all_first)
    ids = None if first_ids is None else first_ids.tolist() + second_ids.tolist()
    total = 0.0
    for view, local in enumerate((first, second)):
        for i, row in enumerate(local.tolist()):
            itself, partner = view * half + offset + i, (1 - view) * half + offset + i
            denominator = 0.0
            known = set() if ids is None else {ids[itself], ids[partner]}
            if pairs:
                known |= related(first_ids, second_ids, ids[offset + i], ids[half + offset + i])
            for j, column in enumerate(columns):
                same_text = ids is not None and ids[j] in known
                if j == partner or (j != itself and not same_text):
                    denominator += math.exp(score(row, column, temperature, similarity))
            total -= math.log(math.exp(score(row, columns[partner], temperature, similarity)) / denominator)
    return total


# Ranking distillation


def softmax(scores):
    total = sum(math.exp(score) for score in scores)
    return [math.exp(score) / total for score in scores]


def slow_list_mle(student, teacher):
    """Plackett and Luce: the best is drawn first, then the best of the others, and so on."""
    total = 0.0
    for scores, order in zip(student.tolist(), teacher.tolist(), strict=True):
        left = sorted(range(len(scores)), key=lambda j: -order[j])
        while left:
            total -= math.log(math.exp(scores[left[0]]) / sum(math.exp(scores[j]) for j in left))
            left.pop(0)
    return total


def slow_list_net(student, teacher):
    pairs = zip(student.tolist(), teacher.tolist(), strict=True)
    return -sum(p * math.log(q) for s, t in pairs for q, p in zip(softmax(s), softmax(t), strict=True))


def slow_jensen_shannon(first, second):
    total = 0.0
    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        for p, q in zip(softmax(a), softmax(b), strict=True):
            mixture = (p + q) / 2
            total += (p * math.log(p / mixture) + q * math.log(q / mixture)) / 2
    return total


# Barlow Twins and VICReg


def column(rows, j):
    return [row[j] for row in rows]


def covariance(x, y, correction):
    """Of two lists of numbers."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / (len(x) - correction)


def slow_barlow_twins(first, second, weight, epsilon):
    """Eq. 1 and 2, with the epsilon that the authors' batch norm adds to the variances."""
    first, second = first.tolist(), second.tolist()
    total = 0.0
    for i, j in itertools.product(range(len(first[0])), repeat=2):
        x, y = column(first, i), column(second, j)
        norms = math.sqrt((covariance(x, x, 0) + epsilon) * (covariance(y, y, 0) + epsilon))
        correlation = covariance(x, y, 0) / norms
        total += (1 - correlation) ** 2 if i == j else weight * correlation**2
    return total


def slow_vicreg(first, second, epsilon):
    """Eq. 1 to 5, with the mean over dimensions and the half that the authors' code has."""
    first, second = first.tolist(), second.tolist()
    rows, dim = len(first), len(first[0])
    invariance = sum((a - b) ** 2 for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    variance = correlated = 0.0
    for view in (first, second):
        for i, j in itertools.product(range(dim), repeat=2):
            value = covariance(column(view, i), column(view, j), 1)
            if i == j:
                variance += max(0.0, 1 - math.sqrt(value + epsilon)) / dim / 2
            else:
                correlated += value**2 / dim
    return [invariance / rows / dim, variance, correlated]


# BYOL and SimSiam


def slow_cosine_regression(predictions, targets):
    """BYOL eq. 2: rows are brought to length 1, and the squared distances added."""
    total = 0.0
    for p, z in zip(predictions.tolist(), targets.tolist(), strict=True):
        p_length, z_length = math.sqrt(sum(a * a for a in p)), math.sqrt(sum(a * a for a in z))
        total += sum((a / p_length - b / z_length) ** 2 for a, b in zip(p, z, strict=True))
    return total


# SwAV


def slow_sinkhorn(scores, epsilon, iterations):
    """Algorithm 1's appendix, by loops: prototypes share the mass evenly, then rows do, again and again."""
    scores = scores.tolist()
    rows, prototypes = len(scores), len(scores[0])
    q = [[math.exp(score / epsilon) for score in row] for row in scores]
    for _ in range(iterations):
        for k in range(prototypes):
            total = sum(row[k] for row in q)
            for row in q:
                row[k] *= 1 / (prototypes * total)
        for row in q:
            total = sum(row)
            row[:] = [value / (rows * total) for value in row]
    return torch.tensor(q, dtype=torch.float64) * rows


def slow_swapped_prediction(codes, scores, temperature):
    """Eq. 2."""
    total = 0.0
    for code, row in zip(codes.tolist(), scores.tolist(), strict=True):
        normaliser = sum(math.exp(score / temperature) for score in row)
        total -= sum(q * math.log(math.exp(s / temperature) / normaliser) for q, s in zip(code, row, strict=True))
    return total


# Contrastive Tension


def slow_contrastive_tension(first, second, identical):
    """Binary cross-entropy on the sigmoid of the dot product, pair by pair."""
    total = 0.0
    for x, y, same in zip(first.tolist(), second.tolist(), identical.tolist(), strict=True):
        probability = 1 / (1 + math.exp(-sum(a * b for a, b in zip(x, y, strict=True))))
        total -= math.log(probability if same else 1 - probability)
    return total


# SCCL


def slow_assignments(rows, centres, alpha):
    """Equation 3."""
    assigned = []
    for row in rows.tolist():
        squares = [sum((x - y) ** 2 for x, y in zip(row, centre, strict=True)) for centre in centres.tolist()]
        kernel = [(1 + square / alpha) ** (-(alpha + 1) / 2) for square in squares]
        assigned.append([value / sum(kernel) for value in kernel])
    return assigned


def slow_target(assigned):
    """Equation 4, with f over the mini-batch."""
    f = [sum(row[k] for row in assigned) for k in range(len(assigned[0]))]
    sharpened = [[q * q / f_k for q, f_k in zip(row, f, strict=True)] for row in assigned]
    return [[value / sum(row) for value in row] for row in sharpened]


def slow_divergence(assigned, target):
    """Equation 5, summed over the rows."""
    pairs = [(p, q) for q_row, p_row in zip(assigned, target, strict=True) for p, q in zip(p_row, q_row, strict=True)]
    return sum(p * math.log(p / q) for p, q in pairs)
