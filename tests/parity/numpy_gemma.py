"""Gemma 1, 2 and 3 in plain numpy, float64: the papers' equations with loops in place of tricks, to be read beside
them.

Gemma arXiv:2403.08295, section 2; Gemma 2 arXiv:2408.00118, section 2 (soft caps, windows, post norms); Gemma 3
arXiv:2503.19786, section 2 (query and key norms, two rotary bases). Shares no code with the library but the names of
weights and configuration fields.
"""

import numpy as np


def norm(x, scale, epsilon):
    """RMSNorm with 1 + scale."""
    return x / np.sqrt(np.mean(x**2) + epsilon) * (1 + scale)


def rotate(head, position, base, factor):
    """Turn the pairs (i, i + h/2) of one head by position / factor * base^(-2i/h)."""
    half = len(head) // 2
    turned = np.empty_like(head)
    for i in range(half):
        angle = position / factor * base ** (-2 * i / len(head))
        turned[i] = head[i] * np.cos(angle) - head[i + half] * np.sin(angle)
        turned[i + half] = head[i + half] * np.cos(angle) + head[i] * np.sin(angle)
    return turned


def capped(x, cap):
    """cap tanh(x / cap), or x."""
    return x if cap is None else cap * np.tanh(x / cap)


def gelu(x):
    """The tanh approximation."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def attention(x, weight, config, is_local):
    """One layer's attention over one sequence x (t, d)."""
    time, h = len(x), config.head_dim
    base = config.local_rope_theta if is_local else config.rope_theta
    factor = 1.0 if is_local else config.rope_scale
    group = config.num_query_heads // config.num_key_value_heads
    mixed = np.zeros((time, config.num_query_heads * h))
    for n in range(config.num_query_heads):
        k = n // group  # the key-value head that query head n reads
        queries, keys = [], []
        for t in range(time):
            q = x[t] @ weight["q_proj"][:, n * h : (n + 1) * h]
            key = x[t] @ weight["k_proj"][:, k * h : (k + 1) * h]
            if config.use_query_key_norm:
                q = norm(q, weight["query_norm"], config.norm_epsilon)
                key = norm(key, weight["key_norm"], config.norm_epsilon)
            queries.append(rotate(q, t, base, factor))
            keys.append(rotate(key, t, base, factor))
        values = x @ weight["v_proj"][:, k * h : (k + 1) * h]
        for t in range(time):
            first = max(0, t - config.sliding_window + 1) if is_local else 0
            scores = [
                capped(queries[t] @ keys[s] * config.query_scale, config.attention_logit_soft_cap)
                for s in range(first, t + 1)
            ]
            chances = np.exp(np.array(scores) - max(scores))
            mixed[t, n * h : (n + 1) * h] = chances / chances.sum() @ values[first : t + 1]
    return mixed @ weight["o_proj"]


def states(ids, weights, config, steer=None, attend=attention):
    """What each block returns for one sequence of ids (t,): a list of (t, d).

    Args:
        weights: name as in our checkpoints → array, projections (in, out). config: `GemmaConfig`.
        steer: vectors (layers, d), each added to what its block returns. attend: another `attention`.
    """
    weights = {name: np.asarray(values, np.float64) for name, values in weights.items()}

    def normed(x, name):
        return np.stack([norm(row, weights[name], config.norm_epsilon) for row in x])

    x = weights["embedding"][ids] * np.sqrt(config.hidden_dim)
    found = []
    for i in range(config.num_layers):
        inside = {
            name.removeprefix(f"layers.{i}."): values
            for name, values in weights.items()
            if name.startswith(f"layers.{i}.")
        }
        update = attend(normed(x, f"layers.{i}.attention_norm"), inside, config, config.local_layers[i])
        x = x + (normed(update, f"layers.{i}.post_attention_norm") if config.use_post_norms else update)
        y = normed(x, f"layers.{i}.feed_forward_norm")
        update = (gelu(y @ inside["gate_proj"]) * (y @ inside["up_proj"])) @ inside["down_proj"]
        x = x + (normed(update, f"layers.{i}.post_feed_forward_norm") if config.use_post_norms else update)
        x = x if steer is None else x + steer[i]
        found.append(x)
    return found


def logits(ids, weights, config, steer=None, attend=attention):
    """Logits (t, v) of one sequence of ids (t,); arguments as `states`."""
    last = states(ids, weights, config, steer, attend)[-1]
    final = np.stack([norm(row, np.asarray(weights["final_norm"], np.float64), config.norm_epsilon) for row in last])
    return capped(final @ np.asarray(weights["embedding"], np.float64).T, config.final_logit_soft_cap)
