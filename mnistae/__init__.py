"""mnistae: convolutional auto-encoders on MNIST, thin enough to read in an evening.

The house, room by room, in reading order:

    data         MNIST as tensors in memory: train / validation / test; label draws; the offline stand-in
    networks     Encoder, Decoder, AutoEncoder, Classifier, from one list of widths
    training     Config (one frozen dataclass), fit (the one loop), trained(config), trained_all(configs)
    checkpoints  Config <-> one safetensors file: named by its fields, checksummed, written atomically
    transfer     classifiers from tens of labels: frozen, fine-tuned, from scratch
    study        the experiments, as data: change a list and ask a new question
    measures     reconstruction error, yardsticks, correlation summaries, interpolation quality, accuracy
    figures      image grids, sweep curves, heat maps: one look for the whole report
    sliders      the α slider
    results      claims that are checked where they are made; numbers on their way to the report

data, networks and measures know nothing of each other; training uses networks, data and checkpoints;
figures and sliders take tensors and numbers, never configs or files; nothing imports a notebook.
"""
