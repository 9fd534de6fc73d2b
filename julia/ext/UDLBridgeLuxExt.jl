# Lux's layers that have a rule here, as layers of Flux with the same arrays, by the source of Lux 1.31.
module UDLBridgeLuxExt

using Flux: Flux
using Lux: Lux
using UDLBridge: UDLBridge, Explicit, Traced, setproperties

"the layers of a container as parts, each with its own parameters and state"
parts(layers::NamedTuple, ps, st) = [Explicit(layers[name], ps[name], st[name]) for name in keys(layers)]

UDLBridge.known_form(m::Lux.Chain, ps, st) = Flux.Chain(parts(m.layers, ps, st)...)

# A connection that is a layer takes a tuple, and has parameters beside those of the branches.
function UDLBridge.known_form(m::Lux.SkipConnection, ps, st)
    m.connection isa Lux.AbstractLuxLayer && return nothing
    return Flux.SkipConnection(Explicit(m.layers, ps, st), m.connection)
end

UDLBridge.known_form(m::Lux.Parallel, ps, st) = joined(something(m.connection, tuple), m.layers, ps, st)
UDLBridge.known_form(m::Lux.BranchLayer, ps, st) = joined(something(m.fusion, tuple), m.layers, ps, st)
UDLBridge.known_form(m::Lux.Maxout, ps, st) = joined(maxima, m.layers, ps, st)

joined(connection, layers, ps, st) = Flux.Parallel(connection, parts(layers, ps, st)...)
joined(::Lux.AbstractLuxLayer, layers, ps, st) = nothing

maxima(ys...) = max.(ys...)

function UDLBridge.known_form(m::Lux.Dense, ps, st)
    return of_one_type(ps) ? Flux.Dense(ps.weight, get(ps, :bias, false), m.activation) : nothing
end

function UDLBridge.known_form(m::Lux.Conv, ps, st)
    of_one_type(ps) || return nothing
    bias, stride, pad, dilation = get(ps, :bias, false), Int.(m.stride), Int.(m.pad), Int.(m.dilation)
    # Without the flag Lux flips the kernel, as Flux's Conv does.
    Bool(m.cross_correlation) || return Flux.Conv(m.activation, ps.weight, bias, stride, pad, dilation, Int(m.groups))
    return m.groups == 1 ? Flux.CrossCor(m.activation, ps.weight, bias, stride, pad, dilation) : nothing
end

"whether the arrays of a layer have one type of numbers: Flux's constructors convert a bias to that of the weight"
of_one_type(ps) = allequal(map(eltype, values(ps)))

function UDLBridge.known_form(m::Lux.BatchNorm, ps, st)
    haskey(st, :running_mean) || return nothing # statistics of the batch
    norm = Flux.BatchNorm(Int(m.chs), m.activation; channel_norm(m, ps)...)
    return setproperties(norm, (; μ=st.running_mean, σ²=st.running_var))
end

UDLBridge.known_form(m::Lux.GroupNorm, ps, st) = Flux.GroupNorm(Int(m.chs), Int(m.groups), m.activation; channel_norm(m, ps)...)

function channel_norm(m, ps)
    scale, bias = get(ps, :scale, nothing), get(ps, :bias, nothing)
    return (; initβ=_ -> bias, initγ=_ -> scale, affine=scale !== nothing, active=false, eps=Float64(m.epsilon), momentum=0.1)
end

# Scale and shift enter behind Lux's own normalisation.

function UDLBridge.known_form(m::Lux.LayerNorm, ps, st)
    !isempty(ps) && m.dims isa Union{Integer,Tuple,AbstractRange} || return nothing
    bare = Lux.LayerNorm(m.shape; m.epsilon, m.dims, affine=false)
    return Flux.Chain(Explicit(bare, (;), st), Stretch(ps.scale, ps.bias, true), UDLBridge.Activation(m.activation))
end

function UDLBridge.known_form(m::Lux.RMSNorm, ps, st)
    isempty(ps) && return nothing
    bare = Lux.RMSNorm(m.normalized_shape; m.epsilon, affine=false)
    return Flux.Chain(Explicit(bare, (;), st), Stretch(ps.scale, nothing, false))
end

function UDLBridge.known_form(m::Lux.Scale, ps, st)
    return Flux.Chain(Stretch(ps.weight, get(ps, :bias, nothing), false), UDLBridge.Activation(m.activation))
end

"""
    Stretch(scale, shift, shift_first)

`scale .* x .+ shift`; both repeat along the axes of `x` where they have length one, or none. `shift` may be `nothing`;
`shift_first` says which comes first among the parameters.
"""
struct Stretch{S,B}
    scale::S
    shift::B
    shift_first::Bool
end
(l::Stretch)(x) = l.shift === nothing ? x .* l.scale : x .* l.scale .+ l.shift

function UDLBridge.fields(l::Stretch)
    l.shift === nothing && return ("scale" => :scale,)
    return l.shift_first ? ("shift" => :shift, "scale" => :scale) : ("scale" => :scale, "shift" => :shift)
end

UDLBridge.observed(l::Stretch, x, see) = see(UDLBridge.Elementwise(l), x)

function UDLBridge.gradients(l::Stretch, x, d)
    scale = over_repeats(d .* x, l.scale)
    l.shift === nothing && return (scale,)
    shift = over_repeats(d, l.shift)
    return l.shift_first ? (shift, scale) : (scale, shift)
end

"the sum (P, n) over the axes of a sample along which the array `a` of P numbers repeats"
function over_repeats(d, a)
    repeats = Tuple(axis for axis in 1:(ndims(d) - 1) if size(a, axis) == 1)
    return reshape(sum(d; dims=repeats), length(a), size(d, ndims(d)))
end

UDLBridge.known_form(m::Lux.Embedding, ps, st) = ps.weight isa AbstractMatrix ? Flux.Embedding(ps.weight) : nothing

UDLBridge.known_form(m::Lux.FlattenLayer, ps, st) = m.N === nothing ? Flux.flatten : nothing
UDLBridge.known_form(::Union{Lux.NoOpLayer,Lux.Dropout,Lux.AlphaDropout}, ps, st) = identity

function UDLBridge.known_form(m::Lux.WrappedFunction, ps, st)
    f = m.func
    f isa Base.Fix1{typeof(broadcast)} && return UDLBridge.Activation(f.x)
    # What a closure holds is constant in Lux, and trained in Flux.
    return Base.issingletontype(typeof(f)) ? f : nothing
end

UDLBridge.known_form(m::Lux.MaxPool, ps, st) = pool(Flux.MaxPool, m.layer.mode)
UDLBridge.known_form(m::Lux.MeanPool, ps, st) = pool(Flux.MeanPool, m.layer.mode)
UDLBridge.known_form(::Lux.GlobalMeanPool, ps, st) = Flux.GlobalMeanPool()
UDLBridge.known_form(::Lux.GlobalMaxPool, ps, st) = Flux.GlobalMaxPool()

function pool(kind, mode)
    all(==(1), mode.dilation) || return nothing
    return kind(Int.(mode.kernel_size); pad=Int.(mode.pad), stride=Int.(mode.stride))
end

# LuxLib writes into arrays, number by number, unless they say that they cannot: then it calls what NNlib and Base have.
Lux.ArrayInterface.fast_scalar_indexing(::Type{<:Traced}) = false
Lux.ArrayInterface.can_setindex(::Type{<:Traced}) = false

end
