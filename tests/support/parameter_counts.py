"""Numbers of parameters by arithmetic, from the layers that the papers and published code describe.

No network is built, so that these numbers can be compared with those of networks that are.
"""


def conv(i, o, side=3, bias=True):
    return side * side * i * o + o * bias


def dense(i, o):
    return i * o + o


def norm(c):
    return 2 * c


def attention(c):
    """Normalisation, and four linear maps: query, key, value, output."""
    return norm(c) + 4 * dense(c, c)


# U-Nets (Ho et al. 2020, appendix B; Song et al. 2021, appendix H)


def unet(model, size, channels=3):
    """Of config.model, NCSN++ or DDPM, for square images of this size."""
    nf, blocks = model.nf, model.num_res_blocks
    pyramid_in, pyramid_out = model.get('progressive_input'), model.get('progressive')
    biggan = model.get('resblock_type') == 'biggan'
    embedding = 4 * nf if model.conditional else 0

    def block(i, o, resized=False):
        skip = dense(i, o) if i != o or resized else 0
        told = dense(embedding, o) if embedding else 0
        return norm(i) + conv(i, o) + told + norm(o) + conv(o, o) + skip

    def resize(c):
        return block(c, c, resized=True) if biggan else conv(c, c)

    levels = [(nf * multiple, size >> i) for i, multiple in enumerate(model.ch_mult)]
    coarsest = levels[-1][0]
    seen = channels * (1 + 2 * len(model.get('input_fourier', ())))
    total = conv(seen, nf) + noise_embedding(model)

    skips, c, image = [nf], nf, channels
    for i, (width, side) in enumerate(levels):
        for _ in range(blocks):
            total += block(c, width) + attention(width) * (side in model.attn_resolutions)
            skips.append(c := width)
        if i < len(levels) - 1:
            total += resize(c)
            skips.append(c)
            if pyramid_in == 'residual':
                total, image = total + conv(image, c), c
            elif pyramid_in == 'input_skip':
                total += dense(channels, c)

    total += 2 * block(coarsest, coarsest) + attention(coarsest)

    for i, (width, side) in reversed(list(enumerate(levels))):
        for _ in range(blocks + 1):
            total, c = total + block(c + skips.pop(), width), width
        total += attention(width) * (side in model.attn_resolutions)
        if pyramid_out == 'output_skip':
            total += norm(width) + conv(width, channels)
        total += resize(width) * (i > 0)
    return total if pyramid_out == 'output_skip' else total + norm(c) + conv(c, channels)


def noise_embedding(model):
    """Frequencies if they are random, two layers, and a vector for each class."""
    nf, fourier = model.nf, model.get('embedding_type') == 'fourier'
    if not model.conditional:
        return 0
    seen, size = (2 * nf if fourier else nf), model.embedding_mult * nf
    layers = dense(seen, size) + dense(size, size)
    classes = model.get('num_classes', 0)
    early = model.get('class_input') == 'features' and classes > 0
    return nf * fourier + layers + (dense(classes, seen) if early else classes * size)


def adm(model, size, channels=3):
    """Of config.model, ADM (Dhariwal & Nichol 2021), for square images of this size."""
    embedding = model.embedding_mult * model.nf

    def block(i, o, attends=False):
        total = norm(i) + conv(i, o) + dense(embedding, 2 * o) + norm(o) + conv(o, o)
        skip = dense(i, o) if i != o else 0
        return total + skip + attention(o) * attends

    levels = [(model.nf * multiple, size >> i) for i, multiple in enumerate(model.ch_mult)]
    c = levels[0][0]
    total, skips = noise_embedding(model) + conv(channels, c), [c]
    for i, (width, side) in enumerate(levels):
        if i:
            total += block(c, c)
            skips.append(c)
        for _ in range(model.num_res_blocks):
            total += block(c, width, side in model.attn_resolutions)
            skips.append(c := width)
    total += block(c, c, attends=True) + block(c, c)
    for i, (width, side) in reversed(list(enumerate(levels))):
        for _ in range(model.num_res_blocks + 1):
            total, c = total + block(c + skips.pop(), width, side in model.attn_resolutions), width
        total += block(c, c) * (i > 0)
    return total + norm(c) + conv(c, channels)


# RefineNets (Song & Ermon 2019, appendix A; Song & Ermon 2020, appendix B)

# Of each stage: its features, those of its refine block (in units of nf), and its dilation.
STAGES = {
    'ncsn': [(1, 1, 1), (2, 1, 1), (2, 2, 2), (2, 2, 4)],
    'ncsnv2_64': [(1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4)],
    'ncsnv2_128': [(1, 1, 1), (2, 1, 1), (2, 2, 1), (4, 2, 2), (4, 4, 4)],
}


def refinenet(model, num_scales, channels=3):
    """Of config.model, NCSN or NCSNv2, for a chain of so many levels."""
    nf, conditional = model.nf, model.name == 'ncsn'

    def instance_norm(c):
        return 3 * c * (num_scales if conditional else 1)

    def block(i, o, dilation, down):
        middle = i if down else o
        skip = conv(i, o, 3 if dilation > 1 else 1) if i != o or down else 0
        return instance_norm(i) + conv(i, middle) + instance_norm(middle) + conv(middle, o) + skip

    def unit(c, norms=conditional):
        """A convolution without bias, which has a normalisation in NCSN alone."""
        return conv(c, c, bias=False) + instance_norm(c) * norms

    def refine(inputs, o, last):
        adapt = sum(4 * unit(c) for c in inputs)
        fuse = sum(conv(c, o) + instance_norm(c) * conditional for c in inputs)
        fuse *= len(inputs) > 1
        return adapt + fuse + 2 * unit(o) + (6 if last else 2) * unit(o)

    stages = [(nf * f, nf * r, dilation) for f, r, dilation in STAGES[model.name]]
    total, c = conv(channels, nf), nf
    for i, (features, _, dilation) in enumerate(stages):
        total += block(c, features, dilation, down=i > 0)
        total += block(features, features, dilation, down=False)
        c = features
    below = []
    for i, (features, refined, _) in reversed(list(enumerate(stages))):
        total += refine([features, *below], refined, last=i == 0)
        below = [refined]
    return total + instance_norm(nf) + conv(nf, channels)
