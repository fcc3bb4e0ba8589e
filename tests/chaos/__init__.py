"""The proof: live chaos, power cuts, simulated hours, and a checker that is itself tried with seeded bugs."""
