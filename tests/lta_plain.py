"""LTA-Thinker's loss restated example by example, without batches, padding or anything of the package's arithmetic."""

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(x: Tensor) -> Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt()


def project(method, states: Tensor) -> Tensor:
    """The projection, then the scale of thoughts."""
    outputs = states @ method.projection.weight.T + method.projection.bias
    if method.config.output_scale is None:
        return outputs
    rms = method.backbone.table.float().square().mean().sqrt()
    return unit(outputs) * rms * method.config.output_scale


def block_read(method, ids: Tensor, slots: Tensor | None) -> Tensor:
    inputs = unit(method.backbone.embed(ids).float())
    inputs = inputs if slots is None else torch.cat([inputs, slots])
    if method.config.positions:
        width = inputs.shape[1]
        for place, row in enumerate(inputs.clone()):
            rates = [10000 ** (-2 * k / width) for k in range(width // 2)]
            waves = [f(torch.tensor(place * rate)) for f in (torch.sin, torch.cos) for rate in rates]
            inputs = torch.cat([inputs[:place], (row + torch.stack(waves))[None], inputs[place + 1 :]])
    return project(method, method.block(inputs[None], torch.ones(1, len(inputs), dtype=torch.bool))[0])


def linear_read(method, ids: Tensor, slots: Tensor | None) -> Tensor:
    text = unit(method.backbone.embed(ids).float())
    inputs = text if slots is None else torch.cat([text, slots])
    return project(method, inputs + text.mean(0))


def assistant_read(method, ids: Tensor, slots: Tensor | None) -> Tensor:
    reader = method.reader
    inputs = reader.model.get_input_embeddings()(ids)
    if slots is not None:
        inputs = torch.cat([inputs, slots * reader.table.square().mean().sqrt()])
    return project(
        method, unit(reader.model(inputs_embeds=inputs[None], output_hidden_states=True).hidden_states[-1][0])
    )


READS = {"block": block_read, "linear": linear_read, "assistant": assistant_read}


def feature_kl(method, question: Tensor, thought: Tensor) -> Tensor:
    p, r = question.softmax(-1), thought.softmax(-1)
    return (p * (p / r).log()).sum()


def cosine(method, question: Tensor, thought: Tensor) -> Tensor:
    return 1 - (question @ thought) / (question.norm() * thought.norm())


def vocabulary_kl(method, question: Tensor, thought: Tensor) -> Tensor:
    model = method.backbone.model
    norm = model.transformer.ln_f if hasattr(model, "transformer") else model.model.norm
    p, r = (norm(x) @ model.lm_head.weight.T for x in (question, thought))
    return (p.softmax(-1) * (p.log_softmax(-1) - r.log_softmax(-1))).sum()


ALIGNMENTS = {"feature-kl": feature_kl, "cosine": cosine, "vocabulary-kl": vocabulary_kl}


def positive(method, prompt) -> int:
    """The nearest step to the answer, in the backbone's embeddings."""
    answer = method.backbone.embed(prompt.answer).mean(0)
    near = [F.cosine_similarity(method.backbone.embed(s).mean(0), answer, dim=0).item() for s in prompt.steps]
    return near.index(max(near))


def plain_losses(method, prompts, choose=positive) -> dict[str, Tensor]:
    """Likelihood, alignment and focus; `choose(method, prompt)` is the positive step."""
    config, backbone, reader = method.config, method.backbone, method.reader
    read = READS[config.generator]
    total = {name: torch.zeros(()) for name in ("likelihood", "alignment", "focus")}
    for p in prompts:
        if config.generator == "assistant":
            asked = reader.ids(reader.chat(p.example.question))
            steps = [reader.ids(step + "\n") for step in p.example.steps]
        else:
            asked = torch.cat([p.question, torch.tensor([backbone.tokenizer.eos_token_id])])
            steps = p.steps
        outputs = read(method, asked, method.slots)
        question, thoughts = outputs[len(asked) - 1], outputs[len(asked) :]
        row = torch.cat([backbone.embed(p.before), thoughts, backbone.embed(p.after), backbone.embed(p.target)])
        logits = backbone.model(inputs_embeds=row[None]).logits[0, -len(p.target) - 1 : -1]
        total["likelihood"] += F.cross_entropy(logits, p.target)
        if config.alignment != "none":
            each = [ALIGNMENTS[config.alignment](method, question, thought) for thought in thoughts]
            total["alignment"] += torch.stack(each).mean()
        towards = torch.stack([1 - cosine(method, read(method, s, None).mean(0), question) for s in steps])
        total["focus"] -= (towards / config.temperature).log_softmax(0)[choose(method, p)]
    return {name: value / len(prompts) for name, value in total.items()}


def same_losses(method, prompts, choose=positive) -> None:
    """The method's losses and gradients are those of the plain formulas."""
    config = method.config
    ours, plain = method.loss(prompts), plain_losses(method, prompts, choose)
    for name, value in ours.parts.items():
        if name in plain:
            torch.testing.assert_close(value, plain[name], atol=2e-5, rtol=1e-5)
    weights = (config.likelihood_weight, config.alignment_weight, config.focus_weight)
    total = torch.stack([w * plain[name] for w, name in zip(weights, plain, strict=True)]).sum()
    torch.testing.assert_close(ours.total, total, atol=2e-5, rtol=1e-5)
    trained = [p for p in method.parameters() if p.requires_grad]
    for found, expected in zip(
        torch.autograd.grad(ours.total, trained), torch.autograd.grad(total, trained), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
