"""The noise of minibatch gradients, and the stochastic differential equation that stands for it.

SGD with rate eta takes minibatch gradients of mean grad L(x) and covariance Sigma(x), in which the
1 / B of the batch is. What replaces it in theory is

    dX = -grad L(X) dt + (eta Sigma(X))^(1/2) dW,        one step of SGD: time eta.

weights.py has the weights of examples that turn the step of SGD into other processes, chains.py
runs these processes, sde.py solves the equation by diffrax, and equilibrium.py measures them where
they have come to rest. docs/svag.md has the method and what it found.
"""
