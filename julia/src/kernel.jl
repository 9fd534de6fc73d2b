"""
    Factor(a, d)

One summand of the kernel: `(a' a) .* (d' d)`, elementwise over pairs of samples. `a` (p, n) is a layer's input with a row
of ones for the bias, `d` (q, K, n) its backpropagated errors. In the plain method `a` is `nothing` and `d` holds
per-sample gradients.
"""
struct Factor{A<:Union{Nothing,Matrix},D<:Array}
    a::A
    d::D
end

"""
    ntk(chain, X, X2 = nothing; outputs = :trace, method = :structured)

The empirical neural tangent kernel of a Flux chain in inference mode,
`Theta[i, j, a, b] = sum_p (d f_a(x_i) / d theta_p) (d f_b(x_j) / d theta_p)`, reduced over outputs.

- `X` (D..., n) and `X2` (D..., m): samples last. `X2 = nothing` means `X`.
- `outputs`: a number from 1 to O for one output, `:trace` (default), `:mean` (trace / O), `:sum`, all (n, m);
  `:diagonal` (n, m, O); `:full` (n, m, O, O).
- `method`: `:structured` never forms a Jacobian (chains of Dense layers on vectors); `:plain` multiplies per-sample
  gradients and serves every chain.

Source: Jacot, Gabriel, Hongler (2018); Novak, Sohl-Dickstein, Schoenholz (2022) for the structured form.
"""
function ntk(chain::Chain, X::AbstractArray, X2=nothing; outputs=:trace, method::Symbol=default_method(chain, X))
    r = reduction(outputs, size(UDLBridge.outputs(chain, sample(X, 1)), 1))
    left = factors(chain, X, r, method)
    right = X2 === nothing ? left : factors(chain, X2, r, method)
    n, m = size(X, ndims(X)), X2 === nothing ? size(X, ndims(X)) : size(X2, ndims(X2))
    O = size(UDLBridge.outputs(chain, sample(X, 1)), 1)
    T = Array{eltype(X)}(undef, trailing(r, O)..., m, n)
    rectangle!(T, r, left, 1:n, right, 1:m)
    return permutedims(T, ndims(T):-1:1)
end

"`:structured` if every layer with parameters is a Dense layer that sees vectors, else `:plain`"
function default_method(chain::Chain, X::AbstractArray)
    x = sample(X, 1)
    for layer in chain.layers
        isempty(parameter_names(layer)) || (layer isa Dense && ndims(x) == 2) || return :plain
        x = layer(x)
    end
    return :structured
end

"""
    factors(chain, X, reduction, method) -> Vector{Factor}

What a kernel needs of the samples `X`: one forward pass and K backward passes for `:structured`, per-sample gradients
for `:plain`.
"""
function factors(chain::Chain, X::AbstractArray, r::Reduction, method::Symbol)
    method === :structured && return structured_factors(chain, X, r)
    method === :plain || throw(ArgumentError("method = :$method; allowed: :structured, :plain"))
    seeds = cotangents(r, outputs(chain, X))
    return [
        Factor(nothing, reshape(block, :, length(seeds), size(X, ndims(X)))) for
        (_, block) in per_sample(chain, X, seeds)
    ]
end

"""
    probed(layer, x, probe)

The layer with `probe` added to its preactivation, where it has one. The gradient with respect to a zero probe is the
backpropagated error of the layer.
"""
probed(layer, x, ::Nothing) = layer(x)
function probed(d::Dense, x, probe)
    σ = NNlib.fast_act(d.σ, x)
    return σ.(d.weight * x .+ d.bias .+ probe)
end

run_probed(::Tuple{}, x, ::Tuple{}) = x
function run_probed(layers::Tuple, x, probes::Tuple)
    return run_probed(Base.tail(layers), probed(first(layers), x, first(probes)), Base.tail(probes))
end

function structured_factors(chain::Chain, X::AbstractArray{T}, r::Reduction) where {T}
    Flux.testmode!(chain)
    inputs = Matrix{T}[]
    x = X
    probes = map(chain.layers) do layer
        isempty(parameter_names(layer)) || (layer isa Dense && x isa AbstractMatrix) ||
            throw(ArgumentError("the structured method has no rule for $(nameof(typeof(layer))); use method = :plain"))
        before, x = x, layer(x)
        layer isa Dense || return nothing
        push!(inputs, layer.bias === false ? before : vcat(before, ones(T, 1, size(before, 2))))
        return zeros(T, size(x))
    end
    isempty(inputs) && return Factor[] # no parameters: the kernel is zero
    y, back = Zygote.pullback(p -> run_probed(chain.layers, X, p), probes)
    seeds = cotangents(r, y)
    errors = [Array{T}(undef, size(p, 1), length(seeds), size(p, 2)) for p in probes if p !== nothing]
    for (k, seed) in enumerate(seeds)
        pulled = [g for (p, g) in zip(probes, only(back(seed))) if p !== nothing]
        for (error, g) in zip(errors, pulled)
            copyto!(view(error, :, k, :), g)
        end
    end
    return [Factor(a, d) for (a, d) in zip(inputs, errors)]
end

"""
    rectangle!(T, reduction, left, rows, right, cols)

Write the kernel of samples `left[rows]` against `right[cols]` into `T` (trailing..., length(cols), length(rows)): the
memory of a C-order array (rows, cols, trailing...). In place, by BLAS.
"""
function rectangle!(T::Array, r::Reduction, left::Vector, rows, right::Vector, cols)
    isempty(left) && return fill!(T, 0)
    scratch, pairs = similar(T), similar(T, length(cols), length(rows))
    for (index, (f, g)) in enumerate(zip(left, right))
        target = index == 1 ? T : scratch
        errors_product!(target, r, f.d, rows, g.d, cols)
        f.a === nothing || inputs_product!(target, pairs, f.a, rows, g.a, cols)
        index == 1 || add!(T, scratch)
    end
    r isa Trace && r.scale != 1 && rmul!(T, eltype(T)(r.scale))
    return T
end

"target .*= a_left' a_right, spread over the leading (output) axes"
function inputs_product!(target::Array, pairs::Matrix, a::Matrix, rows, b::Matrix, cols)
    mul!(pairs, transpose(view(b, :, cols)), view(a, :, rows))
    spread = reshape(pairs, ntuple(_ -> 1, ndims(target) - 2)..., size(pairs)...)
    target .*= spread
    return target
end

add!(T::Array, S::Array) = (T .+= S; T)

# One inner product over (parameter, output) together: this is the trace, or the one output that there is.
function errors_product!(T::Array, ::Union{One,Summed,Trace}, d::Array, rows, e::Array, cols)
    D, E = reshape(d, :, size(d, 3)), reshape(e, :, size(e, 3))
    mul!(T, transpose(view(E, :, cols)), view(D, :, rows))
    return T
end

function errors_product!(T::Array, ::PerOutput, d::Array, rows, e::Array, cols)
    for k in axes(d, 2)
        T[k, :, :] = transpose(e[:, k, cols]) * d[:, k, rows]
    end
    return T
end

function errors_product!(T::Array, ::Full, d::Array, rows, e::Array, cols)
    D, E = reshape(d[:, :, rows], size(d, 1), :), reshape(e[:, :, cols], size(e, 1), :)
    block = reshape(transpose(E) * D, size(e, 2), length(cols), size(d, 2), length(rows))
    return permutedims!(T, block, (1, 3, 2, 4))
end
