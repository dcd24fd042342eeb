"""What we log in to targets with, wherever it comes from: environment, file, Vault, AWS. Agents never see any of it."""
