"""GAU-alpha once more: a pair of tokens at a time, in float64, with nothing of the library in it.

The `-released` schemes are those of model/my_gau_alpha_eval in
HT-NEKO/Information-Entropy-Invariance.
"""

import math

import torch

SINKS = 4


def relative_position(scheme, i, j, n, n_train):
    """The relative position that query i takes key j to have; None where it does not attend."""
    r, w = i - j, n_train // 2
    if scheme == "windowed":
        return r if abs(r) <= w else None
    if scheme == "streamingllm":
        if n <= n_train or abs(r) <= w:
            return r
        return math.copysign(w, r) if j < SINKS else None
    if scheme == "streamingllm-released":
        return r if abs(r) < n_train or i < SINKS or j < SINKS else None
    if scheme == "pi-released":
        return r * n / n_train
    return r


def angles(scheme, d, n, n_train):
    """Radians per position of each pair of features; 0 is no rotation."""
    theta = [10000 ** (-2 * i / d) for i in range(d // 2)]
    if scheme.startswith("alibi"):
        return torch.zeros(d // 2, dtype=torch.float64)
    if scheme == "yarn-released":
        low, high = (
            d * math.log(n_train / (turns * 2 * math.pi)) / (2 * math.log(10000))
            for turns in (32, 1)
        )
        low, high = max(math.floor(low), 0), min(math.ceil(high), d - 1)
        high = high + 0.001 if low == high else high
        ramp = [min(1, max(0, (i - low) / (high - low))) for i in range(d // 2)]
        theta = [t * (1 - g) + t / (n / n_train) * g for t, g in zip(theta, ramp, strict=True)]
    return torch.tensor(theta, dtype=torch.float64)


def product(q, k, angle):
    """q . R k with neighbouring features as pairs: Re(q conj(k) e^(i angle))."""
    pairs = [torch.view_as_complex(x.reshape(-1, 2)) for x in (q, k)]
    return (pairs[0] * pairs[1].conj() * torch.polar(torch.ones_like(angle), angle)).real.sum()


def unpaired_product(q, k, angle):
    """The released ReRoPE's: q rotated, its even features first, times k as it is."""
    even, odd = q[0::2], q[1::2]
    turned = [even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()]
    return torch.cat(turned) @ k


def beta(rule, n, n_train, d):
    """The length rule's multiplier."""
    if rule == "none" or n <= n_train:
        return 1.0
    info = math.sqrt((1 - n ** (-2 / d)) / (1 - n_train ** (-2 / d)))
    return {
        "infoscale": info,
        "logn": math.log(n) / math.log(n_train),
        "sqrtlogn": math.sqrt(math.log(n) / math.log(n_train)),
        "yarn-temperature": (0.1 * math.log(n / n_train) + 1) ** 2,
        "critscale": (n / n_train) ** (2 / d) * info,
    }[rule]


def attention_row(q, k, i, real, config, scheme, rule, layer, measured, window):
    """Weights of query i over all keys, (n,), from q, k (n, d) of one sequence."""
    n, d = k.shape
    n_train = config.n_train
    relative = [relative_position(scheme, i, j, n, n_train) for j in range(n)]
    keys = [j for j in range(real) if relative[j] is not None]
    if not keys:  # padding under a window
        return torch.zeros(n, dtype=torch.float64)
    count = real if scheme.endswith("-released") else len(keys)
    times = beta(rule, count, n_train, d) if measured is None else measured
    if config.normalization == "softmax_plus":
        times *= math.log(count) / math.log(512)
    if scheme == "yarn-released":
        times *= (0.1 * math.log(n / n_train) + 1) ** 2
    theta = angles(scheme, d, n, n_train)
    slope = {
        "alibi": 2 ** (-8 * (layer + 1) / config.num_hidden_layers),
        "alibi-released": times * 2**-8 / math.sqrt(d),
    }.get(scheme, 0.0)
    logits = []
    for j in keys:
        if scheme == "rerope-released" and abs(i - j) >= window:
            own = unpaired_product(q[i], k[j], (window - 1) * theta)
        else:
            own = product(q[i], k[j], relative[j] * theta)
        logits.append(times * own - slope * abs(i - j))
    weights = torch.zeros(n, dtype=torch.float64)
    logits = torch.stack(logits)
    if config.normalization == "squared_relu":
        shares = logits.clamp(min=0) ** 2 / real
    else:
        shares = logits.softmax(0)
    return weights.index_put((torch.tensor(keys),), shares)


def attention_matrix(q, k, real, *how):
    """Weights of all queries of one sequence, (n, n)."""
    return torch.stack([attention_row(q, k, i, real, *how) for i in range(len(q))])


def norm(x):
    return x / (x.square().mean(-1, keepdim=True) + 1e-12).sqrt()


def gau_oracle(
    weights, config, ids, lengths, *, scheme="rope", rule="none", measured=None, window=None
):
    """Outputs of the masked language model with parameters `weights` (original names).

    A dict: `hidden` (after each layer), `attention` (of each layer), `logits`.
    """
    p = {key: value.double() for key, value in weights.items()}
    words = p["gau_alpha.embeddings.word_embeddings.weight"]
    x = norm(words[ids] + p["gau_alpha.embeddings.token_type_embeddings.weight"][0])
    out = {"hidden": [], "attention": []}
    for layer in range(config.num_hidden_layers):
        own = {
            key.split(".gau.")[1]: value for key, value in p.items() if f"layer.{layer}.gau." in key
        }
        y = x @ own["i_dense.weight"].T + own.get("i_dense.bias", 0)
        e, d = config.intermediate_size, config.attention_key_size
        u, v, z = (y * y.sigmoid()).split([e, e, d], dim=-1)
        q, k = (
            z * own[f"{side}_scaleoffset.weight"] + own.get(f"{side}_scaleoffset.bias", 0)
            for side in "qk"
        )
        if config.attention == "dot":
            q = q / math.sqrt(d) if config.attention_scale else q
        else:
            alpha = (
                own["alpha"] if config.attention == "cos-matched" else float(config.attention[3:])
            )
            q, k = (side / side.norm(dim=-1, keepdim=True) for side in (q, k))
            q = alpha * q
        given = None if measured is None else float(measured[layer])
        how = (config, scheme, rule, layer, given, window)
        a = torch.stack(
            [attention_matrix(q[b], k[b], int(real), *how) for b, real in enumerate(lengths)]
        )
        x = norm(x + (u * (a @ v)) @ own["o_dense.weight"].T + own.get("o_dense.bias", 0))
        out["hidden"].append(x)
        out["attention"].append(a)
    return out | {"logits": x @ words.T}
