"""What a reader takes home, as the rows of the README's table, from report/results.json."""

from mnistae.results import mean_sd


def headlines(results):
    """[(question, answer)] in the order of the chapters, of those that were run."""
    rows = []
    if "reconstruction" in results:
        part = results["reconstruction"]
        for d in ("2", "10", "64"):
            errors = part["by_latent_dim"][d]["test_mse"]
            rows.append(
                (
                    f"test error (MSE per pixel) of the base network at d = {d}",
                    f"{mean_sd(errors, 5)} (n = {len(errors)} seeds); PCA {part['pca'][d]:.5f}",
                )
            )
        best = part["best"]
        rows.append(
            (
                "test error of the best network at d = 10",
                f"{mean_sd(best['test_mse'], 5)} (n = {len(best['test_mse'])}), {best['weights']:,} weights",
            )
        )
    if "interpolation" in results:
        half = {
            row["latent_dim"]: row["confidence"] for row in results["interpolation"] if row["alpha"] == 0.5
        }
        for name, words in ((4, "d = 4"), (64, "d = 64"), ("pixels", "pixel blending")):
            rows.append(
                (
                    f"judges' confidence half-way between two digits, {words}",
                    f"{mean_sd(half[name], 3)} (n = {len(half[name])})",
                )
            )
    if "decorrelation" in results:
        part = results["decorrelation"]
        for d in ("2", "10", "64"):
            ranks = part[d]["effective_rank_fraction"]
            rows.append(
                (f"effective rank / d of the code, d = {d}", f"{mean_sd(ranks, 3)} (n = {len(ranks)})")
            )
    if "transfer" in results:
        words = {"frozen": "frozen encoder", "fine_tuned": "fine-tuned", "from_scratch": "from scratch"}
        for row in results["transfer"]:
            scheme, labels, accuracy = row["scheme"], 10 * row["labels_per_class"], row["test_accuracy"]
            if row["latent_dim"] == 10 and labels in (50, 100) and scheme in words:
                question = f"accuracy with {labels} labels, d = 10, {words[scheme]}"
                rows.append((question, f"{mean_sd(accuracy, 3)} (n = {len(accuracy)} draws)"))
    return rows
