"""The steps dialect: a trigger event and steps one after the other."""
