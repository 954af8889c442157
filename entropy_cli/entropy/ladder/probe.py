"""The probe: a small net that predicts tokens from what a model may see, fitted on other images."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from entropy_cli.entropy.ladder.rungs import Tokens
from entropy_cli.entropy.ladder.sights import Seen, Sight

WIDTH, LAYERS, CODE_WIDTH = 128, 2, 32
LEARNING_RATE = 2e-3
IMAGES_PER_STEP, IMAGES_AT_ONCE, LOGITS_AT_ONCE = 32, 32, 2**24  # the last are 0.3 GB with copies
STOPPING_SHARE = 8  # one in so many groups of the training half is for early stopping
CHECKS, PATIENCE = 20, 4  # how often the loss is looked at; looks without a gain that end the training
LARGE_VOCABULARY, PLACES = 1024, 0.1  # above, a step predicts this share of an image's tokens
SMOOTHING = 0.5  # tokens added to each code of the unigram
MAX_CODES = 65_536


class Net(nn.Module):
    """A net of one hidden width for all scales; its logits start at the unigram's."""

    def __init__(self, tokens: Tokens, sight: Sight, log_unigram_SV: Tensor) -> None:
        """Build the net.

        Args:
            tokens: of all images; their number of classes and codes is taken.
            sight: what it sees.
            log_unigram_SV: what its logits start at.
        """
        super().__init__()
        classes = 0 if tokens.class_M is None else int(tokens.class_M.max()) + 1
        V = tokens.vocab_size
        self.layout = tokens.layout
        self.vectors = nn.Linear(sight.vectors, WIDTH) if sight.vectors else None
        self.codes = nn.Embedding(V + 1, CODE_WIDTH) if sight.codes else None
        self.mix = nn.Linear(sight.codes * CODE_WIDTH, WIDTH) if sight.codes else None
        self.place_LW = nn.Parameter(0.02 * torch.randn(sum(tokens.layout.tokens), WIDTH))
        self.classes = nn.Embedding(classes, WIDTH) if classes else None
        self.gain_S = nn.Parameter(torch.ones(len(tokens.layout.tokens)))
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, V)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("log_unigram_SV", log_unigram_SV)

    def forward(self, seen: Seen, scale: int, class_B: Tensor | None, place_l: Tensor) -> Tensor:
        """Return the logits of the tokens at some places of a scale, (B, l, V)."""
        x_BlW = self.place_LW[self.layout.columns(scale)][place_l]
        if self.vectors is not None:
            x_BlW = x_BlW + self.vectors(seen.vector_BlF[:, place_l])
        if self.codes is not None and self.mix is not None:
            x_BlW = x_BlW + self.mix(self.codes(seen.code_BlK[:, place_l]).flatten(2))
        if self.classes is not None:
            assert class_B is not None
            x_BlW = x_BlW + self.classes(class_B)[:, None]
        x_BlW = x_BlW.expand(len(seen.code_BlK), -1, -1) * self.gain_S[scale]
        for layer in self.layers:
            x_BlW = x_BlW + functional.gelu(layer(x_BlW))
        unigram_SV: Tensor = self.log_unigram_SV  # type: ignore[assignment]
        return self.head(x_BlW) + unigram_SV[scale]


@dataclass
class ProbeFit:
    """Two nets, each fitted on the images of the groups of one parity, that predict the other's.

    Attributes:
        steps: the most steps of each net.
        seconds: when to stop at the latest, both nets together; None for never.
        steps_done: of each net, at its least loss on the images kept for stopping.
    """

    tokens: Tokens
    sight: Sight
    steps: int
    seconds: float | None
    progress: Callable[[int], object] = lambda _: None
    steps_done: list[int] = field(default_factory=list)
    was_cut: bool = False
    taken_s: float = 0.0
    _p: list[np.ndarray] = field(default_factory=list)

    def fit(self) -> None:
        """Fit both nets, and predict every token by the one that did not see its image."""
        tokens, M = self.tokens, len(self.tokens.idx_ML)
        self._idx_ML = torch.from_numpy(tokens.idx_ML)
        self._class_M = None if tokens.class_M is None else torch.from_numpy(tokens.class_M)
        self._p = [np.empty((M, number)) for number in tokens.layout.tokens]
        began = time.monotonic()
        for parity in (0, 1):
            until = None if self.seconds is None else began + self.seconds * (parity + 1) / 2
            trained_M = tokens.group_M % 2 == parity
            stopping = np.unique(tokens.group_M[trained_M])[::STOPPING_SHARE]
            stopping_M = np.isin(tokens.group_M, stopping)
            net = self._train(np.flatnonzero(trained_M & ~stopping_M), np.flatnonzero(stopping_M), until)
            self._predict(net, np.flatnonzero(~trained_M))
        self.taken_s = time.monotonic() - began

    def probabilities(self, scale: int) -> np.ndarray:
        """Return the probability of each token of a scale, float64 (M, l)."""
        return self._p[scale]

    def _train(self, image_T: np.ndarray, stopping: np.ndarray, until: float | None) -> Net:
        generator = torch.Generator().manual_seed(self.tokens.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.tokens.seed)
            net = Net(self.tokens, self.sight, self._log_unigram(image_T))
        optimiser = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        every = max(1, self.steps // CHECKS)
        best, best_step, state = math.inf, 0, {k: v.clone() for k, v in net.state_dict().items()}
        for step in range(self.steps + 1):
            if step % every == 0 or step == self.steps:
                held_out = self._held_out_loss(net, stopping)
                if held_out < best:
                    best, best_step = held_out, step
                    state = {k: v.clone() for k, v in net.state_dict().items()}
                elif step - best_step > PATIENCE * every:
                    break
            if step == self.steps:
                break
            if until is not None and time.monotonic() > until:
                self.was_cut = True
                break
            drawn = torch.randint(len(image_T), (IMAGES_PER_STEP,), generator=generator)
            optimiser.zero_grad()
            losses = self._losses(net, torch.from_numpy(image_T)[drawn], generator)
            loss = torch.stack([loss for loss, _ in losses]).sum()
            torch.autograd.backward(loss / sum(number for _, number in losses))
            optimiser.step()
            schedule.step()
            self.progress(1)
        self.progress(self.steps - step)
        net.load_state_dict(state)
        self.steps_done.append(best_step)
        return net.eval()

    def _losses(
        self, net: Net, image_B: Tensor, generator: torch.Generator | None
    ) -> list[tuple[Tensor, int]]:
        """Return the summed loss of each scale, and of how many tokens, weighted by all its tokens."""
        idx_BL = self._idx_ML[image_B]
        class_B = None if self._class_M is None else self._class_M[image_B]
        found = []
        for s, seen in enumerate(self.sight(idx_BL)):
            number = self.tokens.layout.tokens[s]
            place_l = torch.arange(number)
            if generator is not None and self.tokens.vocab_size > LARGE_VOCABULARY:
                place_l = torch.randperm(number, generator=generator)[: math.ceil(PLACES * number)]
            logits_BlV = net(seen, s, class_B, place_l)
            code_Bl = idx_BL[:, self.tokens.layout.columns(s)][:, place_l]
            loss = functional.cross_entropy(logits_BlV.flatten(0, 1), code_Bl.flatten(), reduction="sum")
            found.append((loss * (number / len(place_l)), len(image_B) * number))
        return found

    @torch.inference_mode()
    def _held_out_loss(self, net: Net, image_T: np.ndarray) -> float:
        """Return the mean loss of the images kept for stopping, of at most 1,024 of them."""
        generator = torch.Generator().manual_seed(self.tokens.seed)
        total, number = 0.0, 0
        for image_B in torch.split(torch.from_numpy(image_T[:1024]), IMAGES_AT_ONCE):
            for loss, n in self._losses(net, image_B, generator):
                total, number = total + loss.item(), number + n
        return total / max(1, number)

    @torch.inference_mode()
    def _predict(self, net: Net, image_T: np.ndarray) -> None:
        logits_of_image = max(self.tokens.layout.tokens) * self.tokens.vocab_size
        at_once = min(IMAGES_AT_ONCE, max(1, LOGITS_AT_ONCE // logits_of_image))
        for image_B in torch.split(torch.from_numpy(image_T), at_once):
            idx_BL = self._idx_ML[image_B]
            class_B = None if self._class_M is None else self._class_M[image_B]
            for s, seen in enumerate(self.sight(idx_BL)):
                code_Bl = idx_BL[:, self.tokens.layout.columns(s)]
                logits_BlV = net(seen, s, class_B, torch.arange(code_Bl.shape[1]))
                log_p_BlV = logits_BlV.double().log_softmax(2)
                p_Bl = log_p_BlV.gather(2, code_Bl[..., None])[..., 0].exp()
                self._p[s][image_B.numpy()] = p_Bl.numpy()

    def _log_unigram(self, image_T: np.ndarray) -> Tensor:
        V = self.tokens.vocab_size
        rows = []
        for s in range(len(self.tokens.layout.tokens)):
            code_N = self.tokens.idx_ML[image_T][:, self.tokens.layout.columns(s)].reshape(-1)
            count_V = np.bincount(code_N, minlength=V) + SMOOTHING
            rows.append(np.log(count_V / count_V.sum()))
        return torch.from_numpy(np.stack(rows)).float()
