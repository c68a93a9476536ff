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
                    f"{mean_sd(errors)} (n = {len(errors)} seeds); PCA {part['pca'][d]:.4f}",
                )
            )
        best = part["best"]
        rows.append(
            (
                "test error of the best network at d = 10",
                f"{mean_sd(best['test_mse'])} (n = {len(best['test_mse'])}), {best['weights']:,} weights",
            )
        )
    return rows
