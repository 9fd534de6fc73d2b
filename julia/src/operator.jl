# Products with the Jacobian that never form it: K v = J (J' v) is one `pull` and one `push`.

"""
    pull(model, X, C) -> Vector of name => array

`J' c`, the sum over samples of `J_i' c_i` for cotangents `C` (O, n): one Zygote pullback of the batch. Arrays of the sizes
of the [`parameters`](@ref), in their order.

# Errors
`ArgumentError` as for [`UDLBridge.jacobian`](@ref).
"""
function pull(@nospecialize(model), X::AbstractArray, C::AbstractMatrix)
    chain, X = ready(model, X)
    check_outputs(chain, X)
    see = Gradients()
    _, chain_back = observed_pullback(chain, X, see)
    own = trained(chain)
    return [p.leaf.name => filled(g, value(p.leaf)) for (p, g) in zip(own, gradients!(see, chain_back, C, own))]
end

"""
    push(model, X, direction, C) -> Vector

`<c_i, (J w)_i>` for every sample: the transpose of [`pull`](@ref). `direction` holds the arrays of w in the order of
[`parameters`](@ref).

Where every layer has a rule for tangents ([`has_tangent`](@ref)), one forward pass of the batch carries them. Any other
chain takes `<J_i' c_i, w>` from one Zygote pullback per sample, which is as exact and slower.

# Errors
`ArgumentError` as for [`UDLBridge.jacobian`](@ref).
"""
function push(@nospecialize(model), X::AbstractArray, direction::AbstractVector, C::AbstractMatrix)
    chain, X = ready(model, X)
    check_outputs(chain, X)
    isempty(direction) && return fill!(similar(C, size(C, 2)), 0)
    carried(chain, X) || return push_by_sample(chain, X, direction, C)
    x, dx, forms = X, nothing, in_each_form(chain, direction)
    for layer in Any[chain.layers...]
        checkpoint()
        x, dx = tangent(layer, Any[forms[value(leaf)] for leaf in leaves(layer)], x, dx)
    end
    return vec(sum(C .* dx; dims=1))
end

"whether one forward pass can carry tangents through the chain"
function carried(@nospecialize(chain::Chain), X::AbstractArray)
    x = sample(X, 1)
    for layer in Any[chain.layers...]
        has_tangent(layer, x) || return false
        x = by_layer(layer, x)
    end
    return true
end

"""
    has_tangent(layer, x)

Whether [`tangent`](@ref) has a rule for the layer on a batch like `x`.
"""
has_tangent(layer, x) = false
has_tangent(::Dense, x::AbstractMatrix) = true
has_tangent(::typeof(NNlib.softmax), x::AbstractMatrix) = true
has_tangent(::typeof(Flux.flatten), x) = true

"""
    tangent(layer, direction, x, dx) -> (y, dy)

The layer's output and the derivative of it when its parameters move along `direction` and its input along `dx`;
`nothing` stands for an input that does not move.
"""
function tangent(d::Dense, direction, x, dx)
    z = d.weight * x .+ d.bias
    dz = first(direction) * x
    length(direction) == 2 && (dz .+= direction[2])
    dx === nothing || mul!(dz, d.weight, dx, true, true)
    σ = NNlib.fast_act(d.σ, x)
    # The slope is Zygote's own, so that it agrees with `pull` at a kink, where there is a choice.
    y, back = Zygote.pullback(z -> σ.(z), z)
    slope = only(back(fill!(similar(y), 1)))
    return y, dz .* slope
end

function tangent(::typeof(NNlib.softmax), direction, x, dx)
    y = NNlib.softmax(x)
    return y, dx === nothing ? nothing : y .* (dx .- sum(y .* dx; dims=1))
end

tangent(::typeof(Flux.flatten), direction, x, dx) = Flux.flatten(x), dx === nothing ? nothing : Flux.flatten(dx)

"`push` from per-sample gradients, of a few samples at a time"
function push_by_sample(@nospecialize(chain), X::AbstractArray, direction, C::AbstractMatrix)
    result = fill!(similar(C, size(C, 2)), 0)
    for rows in Iterators.partition(axes(C, 2), 64)
        blocks = per_sample(chain, copy(selectdim(X, ndims(X), rows)), [C[:, rows]])
        for ((_, block), w) in zip(blocks, direction)
            mul!(view(result, rows), transpose(reshape(block, :, length(rows))), vec(w), true, true)
        end
    end
    return result
end
