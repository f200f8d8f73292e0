"""The testbed's small models of real classes: how they are built, trained, packaged and measured."""
