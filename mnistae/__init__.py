"""mnistae: convolutional auto-encoders on MNIST, thin enough to read in an evening. Room by room:

    config       Config, Transfer: what an experiment is
    networks     Encoder, Decoder, AutoEncoder, Classifier
    muon         the optimizer
    data         MNIST as tensors; the embedded sample; draws and distortions
    measures     error, the PCA yardstick, correlations, interpolation, accuracy
    parallel     many jobs side by side
    checkpoints  Config <-> one safetensors file
    training     fit (the one loop), trained(config), trained_all(configs)
    transfer     classifiers from tens of labels
    study        the experiments as lists: change one and ask a new question
    results      tidy tables, claims, records
    figures      one look
    sliders      the α slider

The first six, figures and sliders know nothing of each other; each of the rest uses those above it alone.
"""
