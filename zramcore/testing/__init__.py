"""What a plugin author runs to prove a plugin: one conformance class for each contract. It needs pytest.

Subclass the class of your contract in a test module, give it the factory it asks for, and run pytest.
"""
