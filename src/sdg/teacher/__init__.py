"""A teacher: a vision-language model that makes training targets of short annotations (SDG App. B)."""
