"""What stops a command: a message for stderr and an exit code."""

__all__ = ["CliError"]


class CliError(Exception):
    """A command that cannot go on. `exit_code` is 1 unless usage is wrong (2)."""

    def __init__(self, message: str, *causes: str, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.causes = causes
        self.hint = hint
        self.exit_code = exit_code

    def render(self) -> str:
        """Return the text for stderr: the official form `Error: …` with a `Caused by:` chain, then what to do."""
        lines = [f"Error: {str(self).strip()}"]
        if self.causes:
            numbered = len(self.causes) > 1
            lines += ["", "Caused by:"]
            causes = (f"{i}: {cause}" if numbered else cause for i, cause in enumerate(self.causes))
            lines += [f"    {cause.replace(chr(10), chr(10) + '    ')}" for cause in causes]
        if self.hint:
            lines += ["", self.hint]
        return "\n".join(lines)
