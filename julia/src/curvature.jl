"""
    input_hessian(chain, X)

Second derivatives of every output with respect to the sample that it comes from, `(D, D, O, n)` with `D` the number of
entries of a sample.

Forward mode over reverse mode: the Zygote pullback of each output is differentiated once more, along each entry of the
sample, with a dual number (ForwardDiff). The samples of a batch do not touch each other, so one direction serves all.
"""
function input_hessian(chain::Chain, X::AbstractArray{T}) where {T}
    chain = without_dropout(inference(chain))
    seeds = cotangents(Full(), chain(X))
    n = size(X, ndims(X))
    D = length(X) ÷ n
    H = Array{T}(undef, D, D, length(seeds), n)
    for d in 1:D
        direction = reshape(zeros(T, D, n), size(X))
        reshape(direction, D, n)[d, :] .= 1
        for (k, seed) in enumerate(seeds)
            slope(t) = input_gradient(chain, X .+ t .* direction, seed)
            H[:, d, k, :] = reshape(ForwardDiff.derivative(slope, zero(T)), D, n)
        end
    end
    return H
end

"the pullback of `seed` through the chain to its input; zeros where the outputs do not depend on it"
function input_gradient(chain::Chain, X::AbstractArray, seed)
    pulled = only(last(Zygote.pullback(chain, X))(seed))
    return pulled === nothing ? zero(X) : pulled
end

"the chain with `identity` for every `Dropout`: Flux's draws random numbers even at rest, and not of dual numbers"
function without_dropout(chain::Chain)
    leaf(layer) = layer isa Dropout || Flux.Functors.isleaf(layer)
    return Flux.fmap(layer -> layer isa Dropout ? identity : layer, chain; exclude=leaf)
end
