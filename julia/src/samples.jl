# What goes into a chain, and what comes out of it: samples last, in the numbers of the chain.

"""
    ready(model, X) -> chain, X

The chain in inference mode ([`inference`](@ref)), and the samples in the type of its numbers; tokens stay integers.

# Errors
`ArgumentError` where there is no sample, for numbers without an axis of samples, for entries that are not real numbers, and for
what [`inference`](@ref) refuses.
"""
function ready(@nospecialize(model), X::AbstractArray)
    chain = inference(model)
    ndims(X) > 0 && size(X, ndims(X)) > 0 ||
        throw(ArgumentError("there is no sample in X of size $(size(X)); allowed: (D..., n) with n of at least 1"))
    given = in_numbers(chain, X)
    ndims(X) > 1 || eltype(given) <: Integer || throw(ArgumentError("X is a vector; allowed: (D..., n), samples last: \
        reshape(X, :, 1) is one sample, reshape(X, 1, :) has one number in each"))
    return chain, given
end

function in_numbers(@nospecialize(chain), X::AbstractArray{T}) where {T}
    T <: Real || throw(ArgumentError("X has entries of type $T; allowed: real numbers"))
    takes_tokens(chain) && return tokens(X)
    S = something(number_type(chain), float(T))
    T === S && return X
    return T <: Integer && looks_up(chain, sample(X, 1), S) ? X : S.(X)
end

"""
Whether a model takes whole numbers as they are, and not as numbers of type `S`: a user's own struct may look them up, wherever its table is.
"""
looks_up(@nospecialize(chain), x::AbstractArray, S::Type) = !runs_with(chain, S.(x)) && runs_with(chain, x)

function runs_with(@nospecialize(chain), x)
    try
        by_layer(chain, x)
    catch error
        error isa InterruptException && rethrow()
        return false
    end
    return true
end

tokens(X::AbstractArray) = X
function tokens(X::AbstractArray{Bool})
    all(==(1), sum(X; dims=1)) || throw(ArgumentError("a token is one-hot: exactly one true in each column of X"))
    return dropdims(map(first ∘ Tuple, argmax(X; dims=1)); dims=1)
end

"whether a layer takes tokens: integers that name columns of a table, and are not numbers to compute with"
takes_tokens(@nospecialize(layer)) = false
takes_tokens(::Union{Embedding,Flux.EmbeddingBag}) = true
takes_tokens(s::SkipConnection) = takes_tokens(s.layers)
function takes_tokens(@nospecialize(chain::Chain))
    for layer in Any[chain.layers...]
        takes_tokens(layer) && return true
        has_parameters(layer) && return false
    end
    return false
end

"""
    check_outputs(chain, X)

Refuse a chain in inference mode whose outputs are not (O, n), or whose outputs for a sample depend on the rest of the batch
or on chance: some samples, each alone, are compared with themselves in a batch. Returns the outputs of these samples.
"""
function check_outputs(@nospecialize(chain::Chain), X::AbstractArray)
    n = size(X, ndims(X))
    some = unique(round.(Int, range(1, n; length=min(n, 4))))
    y = by_layer(chain, copy(selectdim(X, ndims(X), some)))
    y isa AbstractMatrix && size(y, 2) == length(some) || throw(ArgumentError("the chain makes \
        $(y isa AbstractArray ? "outputs of size $(size(y))" : "a $(typeof(y))") of $(length(some)) samples; \
        allowed: (O, n), as behind Flux.flatten or a Dense layer, for samples X (D..., n)"))
    eltype(y) <: Real || throw(ArgumentError("the chain has outputs of type $(eltype(y)); allowed: real numbers"))
    # Not a number may be the statistics of one sample.
    apart(a, b) = isequal(a, b) ? zero(a - b) : abs(a - b)
    largest = maximum(abs, Iterators.filter(isfinite, y); init=zero(eltype(y)))
    for (k, i) in enumerate(some)
        difference = maximum(apart.(by_layer(chain, sample(X, i)), view(y, :, k:k)); init=zero(eltype(y)))
        # Far above rounding, far below what statistics of a batch change.
        difference <= sqrt(eps(float(eltype(y)))) * largest && continue
        throw(ArgumentError("sample $i alone and in a batch have outputs that differ by $difference: the chain mixes \
            samples, or is random; allowed: layers that treat each sample by itself"))
    end
    return y
end

"the chain on a batch, layer after layer: compiled for each kind of layer, and not for the network"
by_layer(layer, x) = layer(x)
function by_layer(@nospecialize(chain::Chain), x)
    for layer in Any[chain.layers...]
        checkpoint()
        x = by_layer(layer, x)
    end
    return x
end
