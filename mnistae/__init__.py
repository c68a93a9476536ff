"""mnistae: convolutional auto-encoders on MNIST, small enough to read in an evening. Its modules:

    config       Config, Transfer: what an experiment is
    networks     Encoder, Decoder, AutoEncoder, Classifier
    muon         the optimizer
    data         MNIST as tensors; the embedded sample; random choices and distortions
    measures     error, the PCA baseline, correlations, interpolation, accuracy
    parallel     many jobs side by side
    spreading    labels spread along a graph of similar codes
    figures      one look
    sliders      the α slider
    training     fit (the one loop), train(config, data)
    transfer     evaluate(experiment, encoder, data): classifiers from tens of labels
    probes       networks that no config names
    store        networks and outcomes on disk
    runs         trained(config), trained_all, evaluate_all: load, compute what is missing, store
    study        the experiments as lists: change one and ask a new question
    results      a chapter's tables, claims and records

The first nine import nothing of ours; every other module imports only modules listed above it.
"""
